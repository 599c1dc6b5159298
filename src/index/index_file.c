#include "index/index.h"
peri_status peri_index_open(peri_index **out, const char *path, uint32_t flags, const peri_env *env, const peri_task *task){(void)out;(void)path;(void)flags;(void)env;(void)task;return PERI_ERR_UNSUPPORTED;}
peri_status peri_index_save(const peri_index *ix, const char *path, const peri_task *task){(void)ix;(void)path;(void)task;return PERI_ERR_UNSUPPORTED;}
