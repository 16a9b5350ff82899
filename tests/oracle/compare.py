"""How two gateways differ in what they did with the same requests."""

import gzip
import re

from goldens_adapter import POLICIES, ancestors, identity

# What each makes anew for every request, or counts down.
VOLATILE = {
    "date": "(a date)", "x-request-id": "(an identifier)", "x-ratelimit-reset": "(seconds)",
    "retry-after": "(seconds)", "x-envoy-upstream-service-time": "(milliseconds)",
}
# Which request it was.
OWN = {"x-oracle", "x-backend"}
BODY = 200


def fields(peer, headers):
    """Header fields by name, what is volatile and a peer's ports replaced by words."""
    found = {}
    for name, value in headers:
        if name in OWN:
            continue
        value = re.sub(r",\s*", ", ", VOLATILE.get(name, value))
        for port, number in peer.ports.items():
            value = re.sub(rf"\b{number}\b", f"({port})", value)
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def told(peer, answer, attempts, log):
    """What is compared of one request, by the words for it."""
    text = readable(answer)
    facts = {"status": answer["status"], "body": text if len(text) <= BODY else f"{text[:BODY]}... {len(text)}"}
    facts |= {f"response header {name}": value for name, value in fields(peer, answer["headers"]).items()}
    facts["attempts"] = len(attempts)
    if attempts:
        last = attempts[-1]
        facts |= {"backend": last["backend"], "request line": f"{last['method']} {last['target']}",
                  "body to the backend": last["body"]}
        facts |= {f"backend header {name}": value for name, value in fields(peer, last["headers"]).items()}
    facts["lines in the log"] = len(log)
    if log:
        facts |= {"flags": log[-1]["flags"] or "-", "details": log[-1]["details"]}
    return facts


def readable(answer):
    """The body, decompressed where Python can do so."""
    coding = dict(answer["headers"]).get("content-encoding")
    if coding == "gzip":
        try:
            return f"(gzip) {gzip.decompress(answer['body']).decode('utf-8', 'replace')}"
        except (OSError, EOFError):
            pass
    elif coding and answer["body"]:
        return f"({coding})"
    return answer["body"].decode("utf-8", "replace")


def differences(here, there):
    """A line for each fact that differs, but for what follows from another one."""
    follows = set()
    if here.get("body") != there.get("body"):
        follows.add("response header content-length")
    if not here.get("attempts") or not there.get("attempts"):
        follows |= {fact for fact in [*here, *there] if fact.startswith(("backend", "request line", "body to"))}
    here, there = ({fact: value for fact, value in facts.items() if fact not in follows}
                   for facts in (here, there))
    return [f"{fact}: {here.get(fact, 'absent')!s} here, {there.get(fact, 'absent')!s} there"
            for fact in dict.fromkeys([*here, *there]) if here.get(fact) != there.get(fact)]


def conditions(objects, here, there):
    """A line for each condition that differs, of the policies among these objects."""
    lines = []
    for key in map(identity, objects):
        kind, namespace, name = key
        if kind not in POLICIES:
            continue
        ours, theirs = ancestors(here.get(key)), ancestors(there.get(key))
        for ancestor in dict.fromkeys([*ours, *theirs]):
            one, other = ours.get(ancestor, {}), theirs.get(ancestor, {})
            lines += [f"condition of {kind} {namespace}/{name}, {ancestor}: {line}"
                      for line in differences(one, other)]
    return lines
