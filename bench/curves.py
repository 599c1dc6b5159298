"""Queries/s at equal recall: Perigee against each peer at its best settings.

Two passes. *Survey*: for each setting, walk a ladder of ef by bisection to the
two rungs around each target recall; recall repeats exactly, so the survey is
kept on disk. *Race*: per engine and target the few best settings of the survey
run again on the same rungs, engines taking turns, and only these rounds count.
"""

import copy
import json
from itertools import zip_longest
from pathlib import Path

from bench_common import CACHE, TARGETS, busy_mark, load_average, median, qps_at
from peers import GRID, PEERS, PERIGEE_GRID, Perigee, cached, forget_other_builds, label

# About 12 % apart: two neighbouring rungs differ by little enough that the
# interpolation between them is not the measurement.
LADDER = [10, 11, 12, 13, 14, 16, 18, 20, 22, 25, 28, 32, 36, 40, 45, 50, 56, 64, 72, 80, 90, 100, 112, 128, 144,
          160, 180, 200, 225, 256, 288, 320, 360, 400, 450, 512, 576, 640, 720, 800, 900, 1024, 1200, 1400, 1600]


def survey_one(engine, points, targets=TARGETS, rounds=2):
    """Fill points {ef: [recall, qps]} around each target for a loaded engine."""

    def recall(i):
        ef = str(LADDER[i])
        if ef not in points:
            best = 0.0
            for _ in range(rounds):
                ids, t = engine.search(LADDER[i])
                best = max(best, len(ids) / t.cpu)
            points[ef] = [engine.data.recall(ids), best]
        return points[ef][0]

    for target in targets:
        low, high = -1, len(LADDER)  # recall(low) < target <= recall(high)
        step = LADDER.index(64)
        while high - low > 1:
            middle = min(max(step, low + 1), high - 1)
            if recall(middle) >= target:
                high = middle
            else:
                low = middle
            step = (low + high) // 2
    return points


class Survey:
    """The points of one engine on one data set, kept beside its indexes."""

    def __init__(self, engine, tag):
        data = engine.data
        folder = CACHE / f"{data.name}-{data.fingerprint()}"
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"survey-{engine.name}-{tag}.json"
        self.settings = json.loads(self.path.read_text()) if self.path.exists() else {}

    def keep(self, name, params, points):
        self.settings[name] = {"params": params, "points": points}
        self.path.write_text(json.dumps(self.settings, indent=0) + "\n")

    def flat(self, only=None):
        return [{"setting": s, "params": v["params"], "ef": int(ef), "recall": r, "qps": q}
                for s, v in self.settings.items() if only is None or s in only
                for ef, (r, q) in v["points"].items()]

    def contenders(self, targets=TARGETS, per_target=2, slack=0.9):
        """Points to race: around each target, of the best settings there."""
        chosen = {}
        for target in targets:
            rated = []
            for s in self.settings:
                q = qps_at(self.flat([s]), target)
                if q:
                    rated.append((q, s))
            rated.sort(reverse=True)
            for q, s in rated[:per_target]:
                if q < slack * rated[0][0]:
                    continue
                pts = sorted(self.flat([s]), key=lambda p: p["recall"])
                above = [p for p in pts if p["recall"] >= target][:1]
                below = [p for p in pts if p["recall"] < target][-1:]
                for p in below + above:
                    chosen[(s, p["ef"])] = p
        return list(chosen.values())


def survey_settings(engine, tag, grid, say, build=True):
    """Build, cache and survey an engine's grid. Cheap where all is cached."""
    survey = Survey(engine, tag)
    for params in grid:
        key = label(params)
        if key in survey.settings:
            continue
        info = cached(engine, params, build=build)
        if info is None:
            continue
        survey.keep(key, params, survey_one(engine, {}))
        at = ", ".join(f"{t}: {qps_at(survey.flat([key]), t) or 0:,.0f}/s" for t in TARGETS)
        say(f"{engine.data.name} {engine.name} {key}: built in {info['build_wall']:.1f} s, {at} "
            f"(load {load_average():.1f})")
    return survey


def race(engines, surveys, rounds, per_target):
    """Interleaved rounds over the contenders of every engine: {engine: [points]}."""
    runs = []  # one per engine, setting and ef
    for name, survey in surveys.items():
        loaded = {}
        for p in survey.contenders(per_target=per_target):
            key = p["setting"]
            if key not in loaded:
                loaded[key] = copy.copy(engines[name])
                if cached(loaded[key], p["params"], build=False) is None:
                    raise SystemExit(f"{name} {key}: its index vanished from the cache; remove {survey.path}")
            runs.append({"engine": name, "loaded": loaded[key], "setting": key, "ef": p["ef"], "cpu": [], "wall": []})
    # By place in the list, so that the engines alternate; each round starts elsewhere.
    by_engine = {name: [r for r in runs if r["engine"] == name] for name in surveys}
    order = [r for group in zip_longest(*by_engine.values()) for r in group if r]
    for turn in range(rounds + 1):
        start = turn * len(order) // (rounds + 1)
        for r in order[start:] + order[:start]:
            ids, t = r["loaded"].search(r["ef"])
            if turn == 0:  # warms caches, and gives the recall, which repeats
                r["recall"] = r["loaded"].data.recall(ids)
                continue
            r["cpu"].append(len(ids) / t.cpu)
            r["wall"].append(len(ids) / t.wall)
    return {name: [{"setting": r["setting"], "ef": r["ef"], "recall": r["recall"], "qps": median(r["cpu"]),
                    "qps_wall": median(r["wall"]), "rounds": [round(q, 1) for q in r["cpu"]]} for r in group]
            for name, group in by_engine.items()}


def measure(data, library, options, say):
    """One data set: surveys, race, and queries/s at each target."""
    grids = {name: GRID for name in options.peers}
    grid = options.grid or PERIGEE_GRID
    if options.quick:
        best = json.loads((Path(__file__).parent / "best_known.json").read_text()).get(data.name, {})
        grids = {name: best.get(name, GRID[:1]) for name in options.peers}
        grid = options.grid or [p for p in PERIGEE_GRID if p["m"] in (16, 32) and p["ef_construction"] == 200]
    engines = {name: PEERS[name](data) for name in options.peers}
    surveys = {}
    for name, engine in engines.items():
        surveys[name] = survey_settings(engine, engine.version(), grids[name], say)
    if library:
        engines["perigee"] = Perigee(data, library)
        forget_other_builds(engines["perigee"])
        surveys = {"perigee": survey_settings(engines["perigee"], engines["perigee"].version(), grid, say)} | surveys
    points = race(engines, surveys, options.rounds, 1 if options.quick else 2)
    result = {"set": data.name, "rows": data.rows, "dim": data.dim, "distance": data.distance,
              "queries": len(data.test), "rounds": options.rounds, "load_average": load_average(),
              "points": points, "qps_at": {}, "ratios": []}
    for name, p in points.items():
        result["qps_at"][name] = {str(t): qps_at(p, t) for t in TARGETS}
    walls = [p for group in points.values() for p in group if busy_mark(1 / p["qps_wall"], 1 / p["qps"])]
    result["busy"] = len(walls) > sum(map(len, points.values())) // 2
    for name in options.peers if library else ():
        for t in TARGETS:
            mine, theirs = qps_at(points["perigee"], t), qps_at(points[name], t)
            least = data.must.get(name)
            ratio = mine / theirs if mine and theirs else None
            result["ratios"].append({"peer": name, "recall": t, "perigee": mine, "qps": theirs, "ratio": ratio,
                                     "must": least, "met": bool(ratio and ratio >= least) if least else None})
    return result


def table(results):
    lines = ["| set | recall@10 | Perigee, queries/s | peer, queries/s | ratio | must | |",
             "|---|---|---|---|---|---|---|"]
    show = lambda q: f"{q:,.0f}" if q else "not reached"
    for r in results:
        for x in r["ratios"]:
            ratio = f"{x['ratio']:.2f}x" if x["ratio"] else "-"
            must = f"{x['must']}x" if x["must"] else "-"
            met = {True: "met", False: "**not met**", None: ""}[x["met"]]
            lines.append(f"| {r['set']}-{r['dim']}{' (busy)' if r['busy'] else ''} | {x['recall']} | "
                         f"{show(x['perigee'])} | {x['peer']} {show(x['qps'])} | {ratio} | {must} | {met} |")
        if not r["ratios"]:
            for name, at in r["qps_at"].items():
                lines += [f"| {r['set']}-{r['dim']} | {t} | - | {name} {show(q)} | - | - | |" for t, q in at.items()]
    return "\n".join(lines)
