/* What the files of the journal share. */
#ifndef PE_JOURNAL_PARTS_H
#define PE_JOURNAL_PARTS_H

#include "persist/journal.h"

/* A new file, header and name durable, ready for appends; it is in no list yet. */
peri_status pe_jfile_create(pe_jfile **out, pe_journal *j, uint64_t number, uint64_t first,
                            uint64_t map_size);
/* An existing one; limit: valid bytes when sealed, else 0. */
peri_status pe_jfile_open(pe_jfile **out, pe_journal *j, const pe_manifest_file *entry);
void pe_jfile_free(pe_jfile *f, pe_host *host);
/* Blocks for the file up to `end` at least. */
peri_status pe_jfile_allocate(pe_journal *j, pe_jfile *f, uint64_t end);

static inline pe_jfile *pe_journal_active(const pe_journal *j)
{
    return j->files[j->n_files - 1];
}

/* Start and stop what only a writer has. */
peri_status pe_journal_start_writer(pe_journal *j);
/* Save the manifest and become poisoned when it is open which one stands. */
peri_status pe_journal_save_manifest(pe_journal *j, pe_manifest *next);
void pe_journal_remove_gone(pe_journal *j);
peri_status pe_journal_poison(pe_journal *j, peri_status status);
void pe_journal_background(void *journal);
void pe_journal_path_text(const pe_journal *j, const char *name, char *out, size_t room);

#endif
