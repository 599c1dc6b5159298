/* Tensors, models and runs on the log. */
#include "histories.h"
#include "perigee/model.h"
#include "perigee/run.h"
#include "perigee/tensor.h"

static peri_log *log_now;

static int open_fresh(void **state)
{
    (void)state;
    peri_log_config c;
    const char *dir = scratch("layers");
    dir_remove(dir);
    peri_log_config_init(&c);
    c.durability = PERI_DURABLE_MEMORY;
    return peri_log_open(&log_now, dir, &c, NULL);
}

static int close_fresh(void **state)
{
    (void)state;
    uint64_t faults = 1;
    peri_status status = peri_log_check(log_now, &faults);
    peri_log_close(log_now);
    dir_remove(scratch("layers"));
    return status != PERI_OK || faults != 0;
}

/* ---- tensors ---- */

static peri_tensor matrix(uint32_t type, uint64_t rows, uint64_t columns, const void *data)
{
    return (peri_tensor){.type = type,
                         .dims = 2,
                         .shape = {rows, columns},
                         .data = data,
                         .size = rows * columns * peri_tensor_element(type)};
}

static void test_a_tensor_keeps_its_shape_whole_and_in_chunks(void **state)
{
    (void)state;
    static float data[7000];
    peri_buf buf = {0};
    peri_tensor t = matrix(PERI_TENSOR_F32, 1000, 7, data), out;
    for (int i = 0; i < 7000; i++)
        data[i] = (float)i / 3;
    assert_int_equal(peri_tensor_put(log_now, peri_cstr("w/"), &t), PERI_OK);
    assert_int_equal(peri_tensor_get(log_now, peri_cstr("w/*"), 0, &out, &buf), PERI_OK);
    assert_int_equal(out.dims, 2);
    assert_int_equal(out.shape[0], 1000);
    assert_int_equal(out.shape[1], 7);
    assert_memory_equal(out.data, data, sizeof data);
    /* in its place, in chunks; then in fewer; then whole again */
    static const uint64_t rows[] = {1, 300, 1000, 5000};
    for (int i = 0; i < 4; i++) {
        data[40] += 1;
        assert_int_equal(peri_tensor_put_chunked(log_now, peri_cstr("w/"), &t, rows[i]), PERI_OK);
        assert_int_equal(peri_tensor_get(log_now, peri_cstr("w/*"), 0, &out, &buf), PERI_OK);
        assert_int_equal(out.shape[0], 1000);
        assert_memory_equal(out.data, data, sizeof data);
    }
    assert_int_equal(peri_tensor_put(log_now, peri_cstr("w/"), &t), PERI_OK);
    assert_int_equal(peri_tensor_get(log_now, peri_cstr("w/*"), PERI_TENSOR_F64, &out, &buf),
                     PERI_OK);
    assert_int_equal(out.size, 1000 * 7 * 8);
    assert_true(((const double *)out.data)[14] == (double)data[14]);
    assert_int_equal(peri_tensor_get(log_now, peri_cstr("nothing*"), 0, &out, &buf),
                     PERI_ERR_NOT_FOUND);
    peri_buf_free(&buf);
}

static void test_a_tensor_is_mapped_without_a_copy(void **state)
{
    (void)state;
    enum { N = 1 << 18 };
    int64_t *data = malloc(N * sizeof *data);
    peri_tensor t = {.type = PERI_TENSOR_I64, .dims = 1, .shape = {N}, .data = data, .size = N * 8};
    peri_tensor_view v;
    peri_log_info before, after;
    for (int64_t i = 0; i < N; i++)
        data[i] = i * i;
    assert_int_equal(peri_tensor_put(log_now, peri_cstr("squares"), &t), PERI_OK);
    assert_int_equal(peri_log_sync(log_now), PERI_OK);
    peri_log_info_init(&before);
    peri_log_info_init(&after);
    peri_log_get_info(log_now, &before);
    assert_int_equal(peri_tensor_map(log_now, peri_cstr("squares"), &v), PERI_OK);
    peri_log_get_info(log_now, &after);
    assert_int_equal(after.heap, before.heap);
    assert_int_equal(v.view.copied, 0);
    assert_int_equal((uintptr_t)v.tensor.data % 64, 0);
    assert_memory_equal(v.tensor.data, data, N * 8);
    peri_tensor_unmap(log_now, &v);
    assert_int_equal(peri_tensor_map(log_now, peri_cstr("none"), &v), PERI_ERR_NOT_FOUND);
    free(data);
}

static void test_plain_values_form_a_tensor_in_numeric_order(void **state)
{
    (void)state;
    peri_tensor out;
    peri_buf buf = {0};
    for (int i = 12000; i-- > 0;) {
        char key[32];
        snprintf(key, sizeof key, "sensor/%04d", i);
        assert_int_equal(peri_log_put_float(log_now, peri_cstr(key), i), PERI_OK);
    }
    assert_int_equal(peri_tensor_get(log_now, peri_cstr("sensor/*"), 0, &out, &buf), PERI_OK);
    assert_int_equal(out.type, PERI_TENSOR_F64);
    assert_int_equal(out.dims, 1);
    assert_int_equal(out.shape[0], 12000);
    for (int i = 0; i < 12000; i++)
        assert_true(((const double *)out.data)[i] == i);
    assert_int_equal(peri_tensor_get(log_now, peri_cstr("sensor/*"), PERI_TENSOR_I32, &out, &buf),
                     PERI_OK);
    assert_int_equal(((const int32_t *)out.data)[11999], 11999);
    assert_int_equal(peri_log_put_int(log_now, peri_cstr("sensor/x"), 1), PERI_OK);
    assert_int_equal(peri_tensor_get(log_now, peri_cstr("sensor/*"), 0, &out, &buf),
                     PERI_ERR_STATE);
    assert_int_equal(peri_log_put_data(log_now, peri_cstr("sensor/x"), PERI_ATOM_TEXT, "t", 1),
                     PERI_OK);
    assert_int_equal(peri_tensor_get(log_now, peri_cstr("sensor/*"), 0, &out, &buf),
                     PERI_ERR_STATE);
    peri_buf_free(&buf);
}

static void test_a_stream_gives_every_row_once(void **state)
{
    (void)state;
    static int32_t data[3009];
    peri_tensor t = matrix(PERI_TENSOR_I32, 1003, 3, data), out;
    peri_tensor_stream *s;
    for (int i = 0; i < 3009; i++)
        data[i] = i;
    assert_int_equal(peri_tensor_put_chunked(log_now, peri_cstr("d/"), &t, 100), PERI_OK);
    static const uint64_t batches[] = {1, 7, 100, 250, 5000};
    for (int b = 0; b < 5; b++) {
        uint64_t row = 0;
        assert_int_equal(peri_tensor_stream_open(&s, log_now, peri_cstr("d/*"), batches[b], 0),
                         PERI_OK);
        for (;;) {
            assert_int_equal(peri_tensor_stream_next(s, &out), PERI_OK);
            if (out.shape[0] == 0)
                break;
            assert_true(out.shape[0] == batches[b] || row + out.shape[0] == 1003);
            assert_memory_equal(out.data, data + row * 3, out.size);
            row += out.shape[0];
        }
        assert_null(out.data);
        assert_int_equal(row, 1003);
        peri_tensor_stream_close(s);
    }
    /* a missing chunk is no shorter tensor */
    assert_int_equal(peri_log_delete(log_now, peri_cstr("d/chunk_0004")), PERI_OK);
    peri_buf buf = {0};
    assert_int_equal(peri_tensor_get(log_now, peri_cstr("d/*"), 0, &out, &buf), PERI_ERR_STATE);
    assert_int_equal(peri_log_delete(log_now, peri_cstr("d/chunk_0010")), PERI_OK);
    assert_int_equal(peri_tensor_get(log_now, peri_cstr("d/*"), 0, &out, &buf), PERI_ERR_STATE);
    peri_buf_free(&buf);
    peri_tensor_stream_close(NULL);
}

static void test_tensors_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    double d = 1;
    peri_tensor t = {.type = PERI_TENSOR_F64, .dims = 1, .shape = {1}, .data = &d, .size = 8}, bad,
                out;
    peri_buf buf = {0};
    assert_int_equal(peri_tensor_put(log_now, peri_cstr("t"), &t), PERI_OK);
    bad = t, bad.size = 4;
    assert_int_equal(peri_tensor_put(log_now, peri_cstr("t"), &bad), PERI_ERR_ARG);
    bad = t, bad.type = 9;
    assert_int_equal(peri_tensor_put(log_now, peri_cstr("t"), &bad), PERI_ERR_ARG);
    bad = t, bad.dims = 9;
    assert_int_equal(peri_tensor_put(log_now, peri_cstr("t"), &bad), PERI_ERR_ARG);
    bad = t, bad.dims = 2, bad.shape[0] = bad.shape[1] = UINT64_MAX / 2;
    assert_int_equal(peri_tensor_put(log_now, peri_cstr("t"), &bad), PERI_ERR_ARG);
    assert_int_equal(peri_tensor_put(log_now, peri_cstr(""), &t), PERI_ERR_ARG);
    assert_int_equal(peri_tensor_put_chunked(log_now, peri_cstr("t"), &t, 0), PERI_ERR_ARG);
    /* no element at all, and no dimension */
    bad = t, bad.shape[0] = 0, bad.size = 0, bad.data = NULL;
    assert_int_equal(peri_tensor_put(log_now, peri_cstr("empty"), &bad), PERI_OK);
    assert_int_equal(peri_tensor_get(log_now, peri_cstr("empty*"), 0, &out, &buf), PERI_OK);
    assert_int_equal(out.size, 0);
    bad = t, bad.dims = 0;
    assert_int_equal(peri_tensor_put(log_now, peri_cstr("one"), &bad), PERI_OK);
    assert_int_equal(peri_tensor_get(log_now, peri_cstr("one*"), 0, &out, &buf), PERI_OK);
    assert_int_equal(out.dims, 0);
    assert_true(*(const double *)out.data == 1);
    peri_buf_free(&buf);
}

/* ---- models ---- */

static int count_model(void *ctx, peri_slice name, const peri_model_info *info)
{
    (void)name;
    (void)info;
    ++*(int *)ctx;
    return 0;
}

static void test_model_versions_and_stages(void **state)
{
    (void)state;
    peri_model_info info;
    peri_buf data = {0}, meta = {0};
    peri_slice name = peri_cstr("net/large"), other = peri_cstr("net");
    assert_int_equal(peri_model_load(log_now, name, 0, &data, NULL, &info), PERI_ERR_NOT_FOUND);
    for (int v = 1; v <= 4; v++) {
        char bytes[40];
        snprintf(bytes, sizeof bytes, "weights of version %d", v);
        assert_int_equal(
            peri_model_save(log_now, name, peri_cstr(bytes), peri_cstr("{\"acc\": 0.9}"), &info),
            PERI_OK);
        assert_int_equal(info.version, v);
    }
    assert_int_equal(peri_model_save(log_now, other, peri_cstr("abc"), peri_cstr(""), &info),
                     PERI_OK);
    assert_string_equal(info.sha256,
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(peri_model_load(log_now, name, 2, &data, &meta, &info), PERI_OK);
    assert_int_equal(info.version, 2);
    assert_memory_equal(data.data, "weights of version 2", 20);
    assert_memory_equal(meta.data, "{\"acc\": 0.9}", 12);
    assert_int_equal(peri_model_load(log_now, name, 5, &data, NULL, &info), PERI_ERR_NOT_FOUND);
    assert_int_equal(peri_model_production(log_now, name, &info), PERI_ERR_NOT_FOUND);
    assert_int_equal(peri_model_set_stage(log_now, name, 3, PERI_STAGE_PRODUCTION), PERI_OK);
    assert_int_equal(peri_model_set_stage(log_now, name, 1, PERI_STAGE_PRODUCTION), PERI_OK);
    assert_int_equal(peri_model_production(log_now, name, &info), PERI_OK);
    assert_int_equal(info.version, 3);
    assert_int_equal(peri_model_set_stage(log_now, name, 3, PERI_STAGE_ARCHIVED), PERI_OK);
    assert_int_equal(peri_model_production(log_now, name, &info), PERI_OK);
    assert_int_equal(info.version, 1);
    assert_int_equal(peri_model_set_stage(log_now, name, 9, PERI_STAGE_STAGING),
                     PERI_ERR_NOT_FOUND);
    assert_int_equal(peri_model_set_stage(log_now, name, 1, 9), PERI_ERR_ARG);
    int n = 0;
    assert_int_equal(peri_model_versions(log_now, name, count_model, &n), PERI_OK);
    assert_int_equal(n, 4);
    n = 0;
    assert_int_equal(peri_model_names(log_now, count_model, &n), PERI_OK);
    assert_int_equal(n, 2);
    peri_buf_free(&data);
    peri_buf_free(&meta);
}

static void test_a_model_that_was_changed_is_an_error(void **state)
{
    (void)state;
    peri_model_info info;
    peri_buf data = {0};
    assert_int_equal(
        peri_model_save(log_now, peri_cstr("m"), peri_cstr("abc"), peri_cstr(""), NULL), PERI_OK);
    assert_int_equal(peri_log_put_data(log_now, peri_cstr("model/m/00000001/part_000000"),
                                       PERI_ATOM_BYTES, "abd", 3),
                     PERI_OK);
    assert_int_equal(peri_model_load(log_now, peri_cstr("m"), 1, &data, NULL, &info),
                     PERI_ERR_CORRUPT);
    assert_int_equal(data.size, 0);
    peri_buf_free(&data);
}

/* ---- runs ---- */

typedef struct ids {
    char id[16][PERI_RUN_ID];
    size_t n;
} ids;

static int take_id(void *ctx, const peri_run_info *run)
{
    ids *i = ctx;
    memcpy(i->id[i->n++], run->id, PERI_RUN_ID);
    return 0;
}

static int count_row(void *ctx, uint32_t kind, peri_slice name, const peri_slice *texts,
                     const double *numbers)
{
    int *n = ctx;
    if (kind == PERI_RUN_METRIC && name.size == 4)
        assert_true(texts[0].data != NULL && numbers[0] != numbers[1]);
    if (name.size == 4 && memcmp(name.data, "only", 4) == 0)
        assert_true(texts[0].data == NULL && texts[1].data != NULL);
    ++*n;
    return 0;
}

static void test_runs_are_found_by_what_they_have(void **state)
{
    (void)state;
    char id[4][PERI_RUN_ID];
    peri_slice tags[] = {peri_cstr("fast"), peri_cstr("a/b")};
    peri_slice names[] = {peri_cstr("loss"), peri_cstr("acc/top1")};
    peri_buf buf = {0}, steps = {0};
    size_t n;
    for (int r = 0; r < 4; r++) {
        assert_int_equal(peri_run_start(log_now, peri_cstr("exp/1"), tags, (size_t)(r % 3), id[r]),
                         PERI_OK);
        assert_int_equal(
            peri_run_param(log_now, id[r], peri_cstr("lr"), peri_cstr(r % 2 ? "0.001" : "0.1")),
            PERI_OK);
        for (int step = 0; step < 5; step++) {
            double values[] = {1.0 / (r + step + 1), r * 10 + step};
            assert_int_equal(peri_run_metrics(log_now, id[r], 2, names, values, step * 100),
                             PERI_OK);
        }
        if (r)
            assert_int_equal(
                peri_run_finish(log_now, id[r], r == 3 ? PERI_RUN_FAILED : PERI_RUN_COMPLETED),
                PERI_OK);
    }
    assert_int_equal(peri_run_finish(log_now, id[1], PERI_RUN_KILLED), PERI_ERR_STATE);
    assert_int_equal(peri_run_finish(log_now, id[0], PERI_RUN_RUNNING), PERI_ERR_ARG);
    assert_int_equal(peri_run_start(log_now, peri_cstr("exp"), NULL, 0, (char[PERI_RUN_ID]){0}),
                     PERI_OK);
    assert_int_equal(peri_run_series(log_now, id[2], names[1], &buf, &steps, &n), PERI_OK);
    assert_int_equal(n, 5);
    assert_true(((double *)buf.data)[3] == 23 && ((int64_t *)steps.data)[3] == 300);

    peri_run_query q;
    peri_slice lr = peri_cstr("lr"), low = peri_cstr("0.001");
    ids found = {0};
    assert_int_equal(peri_run_find(log_now, peri_cstr("exp/1"), NULL, take_id, &found), PERI_OK);
    assert_int_equal(found.n, 4);
    for (int r = 0; r < 4; r++)
        assert_string_equal(found.id[r], id[r]);
    peri_run_query_init(&q);
    q.state = PERI_RUN_COMPLETED + 1;
    q.param_names = &lr;
    q.param_values = &low;
    q.n_params = 1;
    found.n = 0;
    assert_int_equal(peri_run_find(log_now, peri_cstr("exp/1"), &q, take_id, &found), PERI_OK);
    assert_int_equal(found.n, 1);
    assert_string_equal(found.id[0], id[1]);
    peri_run_query_init(&q);
    q.tags = tags;
    q.n_tags = 2;
    found.n = 0;
    assert_int_equal(peri_run_find(log_now, peri_cstr("exp/1"), &q, take_id, &found), PERI_OK);
    assert_int_equal(found.n, 1);
    assert_string_equal(found.id[0], id[2]);
    peri_run_query_init(&q);
    q.sort_by = peri_cstr("loss");
    q.limit = 2;
    found.n = 0;
    assert_int_equal(peri_run_find(log_now, peri_cstr("exp/1"), &q, take_id, &found), PERI_OK);
    assert_int_equal(found.n, 2);
    assert_string_equal(found.id[0], id[3]);
    q.descending = 1;
    found.n = 0;
    assert_int_equal(peri_run_find(log_now, peri_cstr("exp/1"), &q, take_id, &found), PERI_OK);
    assert_string_equal(found.id[0], id[0]);

    const char *two[] = {id[0], id[1]};
    int rows = 0;
    assert_int_equal(peri_run_param(log_now, id[1], peri_cstr("only"), peri_cstr("x")), PERI_OK);
    assert_int_equal(peri_run_compare(log_now, two, 2, count_row, &rows), PERI_OK);
    assert_int_equal(rows, 4);
    assert_int_equal(peri_run_artifact(log_now, id[0], peri_cstr("plot.png"), peri_cstr("bytes")),
                     PERI_OK);
    assert_int_equal(peri_run_get_artifact(log_now, id[0], peri_cstr("plot.png"), &buf), PERI_OK);
    assert_int_equal(buf.size, 5);
    peri_run_info info;
    assert_int_equal(peri_run_get(log_now, "no id", &info), PERI_ERR_ARG);
    assert_int_equal(peri_run_get(log_now, "0123456789abcdef0123456789abcdef", &info),
                     PERI_ERR_NOT_FOUND);
    assert_int_equal(peri_run_tag(log_now, "0123456789abcdef0123456789abcdef", tags[0]),
                     PERI_ERR_NOT_FOUND);
    assert_int_equal(peri_run_param(log_now, id[0], peri_cstr(""), low), PERI_ERR_ARG);
    peri_buf_free(&buf);
    peri_buf_free(&steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define IN_LOG(test) cmocka_unit_test_setup_teardown(test, open_fresh, close_fresh)
        IN_LOG(test_a_tensor_keeps_its_shape_whole_and_in_chunks),
        IN_LOG(test_a_tensor_is_mapped_without_a_copy),
        IN_LOG(test_plain_values_form_a_tensor_in_numeric_order),
        IN_LOG(test_a_stream_gives_every_row_once),
        IN_LOG(test_tensors_that_make_no_sense_are_refused),
        IN_LOG(test_model_versions_and_stages),
        IN_LOG(test_a_model_that_was_changed_is_an_error),
        IN_LOG(test_runs_are_found_by_what_they_have),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
