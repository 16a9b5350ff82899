"""Envoy Gateway's goldens of its translator, beside what `edge-gateway check` says of the same objects.

An input is a list of objects; its output has the objects with their statuses, and each route with what
applies to it. Both are read from the Go module, at the version that tests/crds/go.mod names.
"""

import copy
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

# The C library reads and writes some times as fast.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
POLICIES = ("BackendTrafficPolicy", "ClientTrafficPolicy", "SecurityPolicy")
# Of the names of the inputs.
ABOUT_POLICIES = re.compile("|".join(kind.lower() for kind in POLICIES))
CLASS = "envoy-gateway-class"
CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"
# Other versions of these have the same fields.
VERSIONS = {
    "BackendTLSPolicy": "v1", "GRPCRoute": "v1", "Gateway": "v1", "HTTPRoute": "v1",
    "ListenerSet": "v1", "ReferenceGrant": "v1beta1", "TCPRoute": "v1alpha2", "TLSRoute": "v1",
    "UDPRoute": "v1alpha2",
}
DOCUMENT = {
    "apiVersion": "gateway.envoyproxy.io/v1alpha1",
    "kind": "EnvoyGateway",
    "gateway": {"controllerName": CONTROLLER},
    "provider": {"type": "Custom", "custom": {"resource": {"type": "File", "file": {}}}},
    "extensionApis": {"enableBackend": True},
}
# There, each Gateway has an Envoy; here, an address.
POOL = "127.96.0.0/24"


def services():
    """What the tests of Envoy Gateway put beside every input."""
    ports = {"http": (8080, "TCP"), "https": (8443, "TCP"), "tcp": (8163, "TCP"), "udp": (8162, "UDP")}
    for name in ("service-1", "service-2", "service-3", "service-4", "mirror-service"):
        listed = [{"name": port, "port": number, "protocol": protocol}
                  for port, (number, protocol) in ports.items()]
        yield {"apiVersion": "v1", "kind": "Service",
               "metadata": {"namespace": "default", "name": name}, "spec": {"ports": listed}}
        yield {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
               "metadata": {"namespace": "default", "name": f"endpointslice-{name}",
                            "labels": {"kubernetes.io/service-name": name}},
               "addressType": "IPv4", "ports": listed,
               "endpoints": [{"addresses": ["7.7.7.7"], "conditions": {"ready": True}}]}


def identity(one):
    """The kind, namespace and name of an object."""
    meta = one["metadata"]
    return one["kind"], meta.get("namespace", "default"), meta["name"]


def objects(given):
    """The objects of an input, as files of ours have them."""
    listed = []
    for value in given.values():
        listed += value if isinstance(value, list) else [value]
    listed = copy.deepcopy(listed)
    classes = [one for one in listed if one["kind"] == "GatewayClass"]
    if not classes:
        classes = [{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
                    "metadata": {"name": CLASS}, "spec": {"controllerName": CONTROLLER}}]
        listed = classes + listed
    proxy = given.get("envoyProxyForGatewayClass")
    if proxy:
        _, namespace, name = identity(proxy)
        classes[0]["spec"]["parametersRef"] = {
            "group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "namespace": namespace, "name": name}
    there = {identity(one) for one in listed}
    listed += [one for one in services() if identity(one) not in there]
    for place, one in enumerate(listed):
        group = one["apiVersion"].rpartition("/")[0]
        if group == "gateway.networking.k8s.io" and one["kind"] in VERSIONS:
            one["apiVersion"] = f"{group}/{VERSIONS[one['kind']]}"
        one.pop("status", None)
        per_retry = ((one.get("spec") or {}).get("retry") or {}).get("perRetry")
        if per_retry and "backoff" in per_retry:
            # Their tests read it; the CRD has it with a capital O.
            per_retry["backOff"] = per_retry.pop("backoff")
        # Their translator takes objects in the order in which it gets them; from an API server
        # these are sorted by age.
        at = f"2020-01-01T{place // 3600:02}:{place // 60 % 60:02}:{place % 60:02}Z"
        one["metadata"].setdefault("creationTimestamp", at)
    return listed


def ancestors(status):
    """Of each ancestor of a policy, the conditions: type to status and reason."""
    found = {}
    for one in (status or {}).get("ancestors") or []:
        ref = one["ancestorRef"]
        name = f"{ref.get('kind', 'Gateway')} {ref.get('namespace', '-')}/{ref['name']}"
        if "sectionName" in ref:
            name += f" {ref['sectionName']}"
        found[name] = {condition["type"]: f"{condition['status']}, {condition['reason']}"
                       for condition in one.get("conditions") or []}
    return found


def statuses(documents):
    """The ancestors of each policy."""
    return {identity(one): ancestors(one.get("status")) for one in documents
            if one and one["kind"] in POLICIES}


class Marks:
    """Policies whose fields are replaced by a number each, which is seen where they apply.

    A policy of a Gateway is marked by its count of retries or its allowed methods, that of a route by its timeout
    or its allowed headers: where the two are merged, both are seen.
    """

    FIRST = 2000

    def __init__(self, listed):
        self.names = {}
        self.listed = copy.deepcopy(listed)
        for one in self.listed:
            kind = one["kind"]
            if kind in ("HTTPRoute", "GRPCRoute"):
                for rule in one["spec"].get("rules") or []:
                    for field in ("timeouts", "retry", "filters"):
                        rule.pop(field, None)
            elif kind in ("BackendTrafficPolicy", "SecurityPolicy"):
                mark = self.FIRST + len(self.names)
                self.names[mark] = identity(one)
                one["spec"] = self.spec(kind, one["spec"], mark)

    @staticmethod
    def spec(kind, spec, mark):
        """The targets and merge type of a policy, and the mark."""
        kept = {field: spec[field] for field in ("targetRef", "targetRefs", "targetSelectors", "mergeType")
                if field in spec}
        targets = [spec.get("targetRef") or {}, *(spec.get("targetRefs") or []),
                   *(spec.get("targetSelectors") or [])]
        is_routes = any(str(target.get("kind")).endswith("Route") for target in targets)
        if kind == "BackendTrafficPolicy":
            if is_routes:
                return kept | {"timeout": {"http": {"requestTimeout": f"{mark}s"}}}
            return kept | {"retry": {"numRetries": mark}}
        name = "allowHeaders" if is_routes else "exposeHeaders"
        return kept | {"cors": {"allowOrigins": ["https://a.test"], name: [f"x-mark-{mark}"]}}

    def seen(self, table):
        """The policies that apply to each rule, by its name."""
        found = {}
        for block in re.split(r"^(?=rule )", table, flags=re.M)[1:]:
            name, *lines = block.splitlines()
            lines = [line for line in lines if line.startswith("  ")]
            marks = set()
            for line in lines:
                marks |= {int(mark) for mark in re.findall(
                    r"request timeout (\d+)s|up to (\d+) retries|x-mark-(\d+)", line) for mark in mark if mark}
            of_rule = found.setdefault(name.removeprefix("rule "), set())
            of_rule |= {self.names[mark] for mark in marks if mark in self.names}
        return found


def attached(output):
    """Of each rule, the BackendTrafficPolicies that apply to it, and whether a SecurityPolicy does."""
    traffic, secured = {}, {}
    for of_gateway in (output.get("xdsIR") or {}).values():
        for listener in of_gateway.get("http") or []:
            for route in listener.get("routes") or []:
                rule = route["name"].partition("/match/")[0]
                listed = (route.get("metadata") or {}).get("policies") or []
                traffic.setdefault(rule, set()).update(
                    (one["kind"], one["namespace"], one["name"]) for one in listed)
                secured[rule] = secured.get(rule, False) or bool(route.get("security"))
    return traffic, secured


def check(program, listed, *options):
    """What `edge-gateway check` prints of some objects: what it says of them, and the rest."""
    with tempfile.TemporaryDirectory(prefix="oracle-") as name:
        folder = Path(name)
        (folder / "objects").mkdir()
        text = yaml.dump_all(listed, Dumper=DUMPER, sort_keys=False)
        (folder / "objects/all.yaml").write_text(text)
        document = copy.deepcopy(DOCUMENT)
        document["provider"]["custom"]["resource"]["file"]["paths"] = [str(folder / "objects")]
        (folder / "gateway.yaml").write_text(yaml.safe_dump(document))
        said = subprocess.run(
            [program, "check", "--config", folder / "gateway.yaml", "--address-pool", POOL,
             "--letsencrypt-dir", folder, "--env-file", "/dev/null",
             "--control-socket", folder / "none.sock", *options],
            capture_output=True, text=True, check=False)
        if said.returncode not in (0, 1) or not said.stdout:
            raise RuntimeError(f"`edge-gateway check` ended with {said.returncode}: {said.stderr}")
        start = f"{folder}/"
        lines = said.stdout.splitlines()
        told = [line for line in lines if line.startswith(start)]
        rest = "\n".join(line for line in lines if not line.startswith(start))
        told = [line.partition(": ")[2].replace(start, "") for line in told]
        return told, re.sub(r"\n?\d+ objects? in .*", "", rest)


def words(name):
    """An object's name in a difference."""
    kind, namespace, name = name
    return f"{kind} {namespace}/{name}"


def compare(program, given, wanted):
    """How ours differs from a golden, in lines that are the same for every run."""
    listed = objects(given)
    told, rest = check(program, listed, "--status")
    theirs = statuses([one for value in wanted.values() if isinstance(value, list) for one in value])
    ours = statuses(yaml.load_all(rest, LOADER))
    differences = []
    for name, wanted_ones in sorted(theirs.items()):
        if name not in ours:
            why = next((line for line in told if words(name) in line and "warning: " not in line), None)
            why = why or next((line for line in told if words(name) in line), "nothing said of it")
            if wanted_ones:
                said = "; ".join(sorted({conditions.get("Accepted", "-") for conditions in wanted_ones.values()}))
                differences.append(f"{words(name)}: no status here, there Accepted is {said}: {why}")
            continue
        for ancestor in sorted(wanted_ones.keys() | ours[name].keys()):
            where = f"{words(name)}, {ancestor}"
            if ancestor not in ours[name]:
                differences.append(f"{where}: no such ancestor here")
            elif ancestor not in wanted_ones:
                differences.append(f"{where}: no such ancestor there")
            else:
                there, here = wanted_ones[ancestor], ours[name][ancestor]
                differences += [f"{where}: {kind} is {here.get(kind, 'absent')} here, {there.get(kind, 'absent')} there"
                                for kind in sorted(there.keys() | here.keys())
                                if there.get(kind) != here.get(kind)]
    differences += compare_attached(program, listed, theirs, wanted)
    return differences


def compare_attached(program, listed, theirs, wanted):
    """How ours differs from a golden in what applies to each rule."""
    if not any(name[0] in ("BackendTrafficPolicy", "SecurityPolicy") for name in theirs):
        return []
    marks = Marks(listed)
    _, table = check(program, marks.listed, "--table")
    seen = marks.seen(table)
    traffic, secured = attached(wanted)
    # What they refused is accepted here without its fields: of these the conditions are compared.
    refused = {name for name, ones in theirs.items()
               if ones and all(one.get("Accepted") == "False, Invalid" for one in ones.values())}
    merging = {identity(one) for one in listed if "mergeType" in (one.get("spec") or {})}
    differences = []
    for rule in sorted(traffic.keys()):
        here = seen.get(rule)
        if here is None:
            differences.append(f"{rule}: no such rule here")
            continue
        if any(name[0] == "BackendTrafficPolicy" for name in theirs) and not here & refused:
            here_ones = {name for name in here if name[0] == "BackendTrafficPolicy"}
            # Of two that are merged they name the route's. The conditions tell of the other.
            here_ones = here_ones & merging or here_ones
            if here_ones != traffic[rule]:
                differences.append(f"{rule}: {listed_words(here_ones)} here, {listed_words(traffic[rule])} there")
        here_ones = {name for name in here if name[0] == "SecurityPolicy"}
        if not here_ones & refused and bool(here_ones) != secured[rule]:
            there = "a SecurityPolicy" if secured[rule] else "no SecurityPolicy"
            differences.append(f"{rule}: {listed_words(here_ones)} here, {there} there")
    return differences


def listed_words(names):
    """Names of policies, or that there are none."""
    return " and ".join(words(name) for name in sorted(names)) or "no policy"


def all_differences(program, testdata, chosen=()):
    """The differences of each input about policies, by its name."""
    files = {file.name.removesuffix(".in.yaml"): file for file in sorted(testdata.glob("*.in.yaml"))}
    names = [name for name in files if ABOUT_POLICIES.search(name) and (not chosen or name in chosen)]

    def of(name):
        given = yaml.load(files[name].read_text(), LOADER)
        wanted = yaml.load(files[name].with_name(f"{name}.out.yaml").read_text(), LOADER)
        return compare(program, given, wanted)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(of, names), strict=True))
