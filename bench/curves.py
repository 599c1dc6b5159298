"""Queries/s at equal recall: Perigee against each peer at its best settings.

Two passes. *Survey*: for each setting, walk a ladder of ef by bisection to the
two rungs around each target recall; recall repeats exactly, so the survey is
kept on disk. *Race*: per engine and target the few best settings of the survey
run again on the same rungs, engines taking turns, and only these rounds count.
"""

import json
from pathlib import Path

from bench_common import CACHE, K, TARGETS, front, load_average, median, qps_at
from peers import GRID, PEERS, cached, label

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


def survey_peers(data, names=tuple(PEERS), grid=None, say=print):
    """Build, cache and survey the peers' grid. Cheap when all is cached."""
    out = {}
    for params in grid or GRID:
        for name in names:
            engine = PEERS[name](data)
            survey = out.setdefault(name, Survey(engine, engine.version()))
            key = label(params)
            if key in survey.settings:
                continue
            info = cached(engine, params)
            points = survey_one(engine, {})
            survey.keep(key, params, points)
            at = ", ".join(f"{t}: {qps_at(survey.flat([key]), t) or 0:,.0f}/s" for t in TARGETS)
            say(f"{data.name} {name} {key}: built in {info['build_wall']:.1f} s, {at} (load {load_average():.1f})")
    return out
