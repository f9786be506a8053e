"""Record what one served version shows to Prometheus under load, for `bench.experiment_scale`.

    python -m bench.recorded --namespace quant --model spx-volatility --seconds 180

Every SCRAPE seconds the pod's own exposition and its clusters in Envoy's are read as they are. The file holds, for each
series, its labels and its values one scrape after the other: bench/recorded.json.gz.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import time
from pathlib import Path

import httpx

from sandbox.running import Running

FILE = Path(__file__).parent / "recorded.json.gz"
SCRAPE = 5.0
LINE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")


def read(text: str) -> dict[str, float]:
    """`name{labels}` -> value of an exposition."""
    found = (LINE.match(line) for line in text.splitlines() if not line.startswith("#"))
    return {f"{match[1]}{{{match[2] or ''}}}": float(match[3]) for match in found if match}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="fiduciary")
    parser.add_argument("--namespace", default="quant")
    parser.add_argument("--model", default="spx-volatility")
    parser.add_argument("--seconds", type=float, default=180.0)
    options = parser.parse_args()
    kubectl = Running.of(options.name).kubectl
    digest = kubectl.get("fm", options.model, "-n", options.namespace)["status"]["champion"]["digest"]
    service = f"{options.model}-{digest.removeprefix('sha256:')[:12]}"
    selector = "fiduciary.dev/component=serving"
    pods = kubectl.get("pods", "-n", options.namespace, "-l", selector)["items"]
    pod = next(one for one in pods if one["metadata"]["name"].startswith(service + "-"))
    envoy = kubectl.get("pods", "-n", "projectcontour", "-l", "app=envoy")["items"][0]
    pages = {
        "pod": f"http://{pod['status']['podIP']}:8082/metrics",
        "gateway": f"http://{envoy['status']['podIP']}:8002/stats/prometheus",
    }
    cluster = re.compile(rf'envoy_cluster_name="{options.namespace}_{service}_(8080|8081)"')
    tape: dict[str, dict[str, list[float]]] = {name: {} for name in pages}
    began = time.monotonic()
    scrapes = round(options.seconds / SCRAPE)
    for number in range(scrapes):
        time.sleep(max(0.0, began + number * SCRAPE - time.monotonic()))
        for name, url in pages.items():
            series = read(httpx.get(url, timeout=4).text)
            if name == "gateway":
                series = {key: value for key, value in series.items() if cluster.search(key)}
            for key, value in series.items():
                tape[name].setdefault(key, [0.0] * number).append(value)
    content = {
        "scrapeSeconds": SCRAPE,
        "namespace": options.namespace,
        "service": service,
        "model": f"{options.namespace}.{options.model}",
        **{
            name: {key: values for key, values in series.items() if len(values) == scrapes}
            for name, series in tape.items()
        },
    }
    FILE.write_bytes(gzip.compress(json.dumps(content, separators=(",", ":")).encode(), mtime=0))
    print(
        f"{len(content['pod'])} series of the pod, {len(content['gateway'])} of its clusters, {scrapes} scrapes: {FILE}"
    )


if __name__ == "__main__":
    main()
