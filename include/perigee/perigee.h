/** @file perigee.h  All public headers. */
#ifndef PERI_PERIGEE_H
#define PERI_PERIGEE_H
#include "perigee/base.h"
#include "perigee/fuse.h"
#include "perigee/index.h"
#include "perigee/io.h"
#include "perigee/log.h"
#include "perigee/model.h"
#include "perigee/run.h"
#include "perigee/space.h"
#include "perigee/sparse.h"
#include "perigee/tensor.h"
#include "perigee/text.h"
#include "perigee/vectors.h"
#endif
