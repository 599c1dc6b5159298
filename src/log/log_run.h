/* Runs in the log. Keys, <e> and <n> escaped names, <id> the run's:
 *   experiments/<e>              NULL
 *   runs/<e>/<start, 16 hex><id> NULL: an experiment's runs in the order of their starts
 *   run/<id>/info                TEXT: "started <us> finished <us> state <n>"
 *   run/<id>/param/<n>           TEXT
 *   run/<id>/metric/<n>          FLOAT, a version a step; run/<id>/step/<n> INT beside it
 *   run/<id>/tag/<n>             NULL
 *   run/<id>/artifact/<n>        BYTES
 */
#ifndef PE_LOG_RUN_H
#define PE_LOG_RUN_H

#include "log/log_names.h"
#include "perigee/run.h"

/* "run/<id>/<what>" or "run/<id>/<what>/<name>". ERR_ARG when the id is none. */
peri_status pe_run_key(pe_name_key *k, const char *id, const char *what, const peri_slice *name);

#endif
