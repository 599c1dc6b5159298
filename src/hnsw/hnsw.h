/* Hierarchical navigable small world graph (Malkov and Yashunin, TPAMI 2020): the graph of graph/
 * with its layers above the dense one. */
#ifndef PE_HNSW_H
#define PE_HNSW_H

#include "graph/graph_index.h"

extern const pe_kind pe_hnsw_kind;

#endif
