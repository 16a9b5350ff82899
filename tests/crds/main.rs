//! An object is refused here where an API server would refuse it, and nowhere else.
//!
//! The other opinion is upstream's: the CRDs of the Gateway API, their OpenAPI schemas walked by
//! [`schema`], their CEL rules run by the crate `cel`. Both judge every object of upstream's
//! conformance manifests, its invalid examples, some thousands of objects made of those by
//! [`mutate`], and those of [`broken`], one at least for each rule. `scripts/install test` brings
//! upstream's files where Go is; without them the tests fail in CI, and say so elsewhere.
//!
//! `BackendTrafficPolicy` and `ClientTrafficPolicy` are judged in the same way, beside the CRDs and the
//! examples of Envoy Gateway.

use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use serde_json::{Value as Json, json};

mod broken;
mod broken_client;
mod broken_traffic;
mod mutate;
#[path = "../needs/mod.rs"]
mod needs;
mod schema;

use self::mutate::Hand;
use self::needs::{INSTALL, needs};
use self::schema::{Crds, Refusal, text};

/// Objects that are made of upstream's.
const MADE: u64 = 10_000;

const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// Upstream's files.
fn upstream() -> Option<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.cache/gateway-api");
    let there = top.join("config/crd/experimental").is_dir().then_some(top);
    needs("upstream's CRDs, fetched by Go", there, INSTALL)
}

/// Every YAML file below a folder, in the order of their names.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a folder's entry").path()).collect();
    paths.sort();
    let below = paths.into_iter().flat_map(|path| match path.is_dir() {
        true => files(&path),
        false => vec![path],
    });
    below.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect()
}

/// The documents of a file.
fn yaml(file: &Path) -> Vec<Json> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    // The suite fills these in.
    let text = text
        .replace("{GATEWAY_CLASS_NAME}", "conformance")
        .replace("{GATEWAY_CONTROLLER_NAME}", "example.com/conformance")
        .replace("PLACEHOLDER_USABLE_ADDRS", "192.0.2.1")
        .replace("PLACEHOLDER_UNUSABLE_ADDRS", "192.0.2.2");
    serde_yaml::from_multiple(&text).unwrap_or_else(|error| panic!("{file:?}: {error}"))
}

/// Objects below a folder that the CRDs know.
fn objects(crds: &Crds, directory: &Path) -> Vec<Json> {
    let all = files(directory).into_iter().flat_map(|file| yaml(&file));
    all.filter(|object| crds.schema(object).is_some()).collect()
}

/// What the product has against an object.
fn ours(object: &Json) -> Vec<String> {
    edge_gateway::fuzz::refusals(object.to_string().as_bytes())
}

/// Where we refuse on purpose what an API server takes: what a field says, and why.
const ON_PURPOSE: &[(&str, &str)] = &[
    (
        "Modifier.remove[",
        "a word that no header can have for a name: nothing would ever be removed",
    ),
    (".header.remove[", "the same"),
    ("`local` is missing; `type: Local` requires it", TRANSLATED),
    ("another rule has no clientSelectors, too; only one may be without", TRANSLATED),
    ("a Distinct match has no value; remove it", TRANSLATED),
    ("a Distinct match cannot be inverted", TRANSLATED),
    ("`value` is missing; only a Distinct match has none", TRANSLATED),
    ("use a number from 65535 to 2147483647", TRANSLATED),
    ("use a number from 0 to 4294967295", TRANSLATED),
    ("is not a regular expression", TRANSLATED),
    ("is not an address range; write it like", TRANSLATED),
    ("tls.clientValidation: not supported yet", "a listener must not be open without it"),
    ("an interval cannot be 0s", TRANSLATED),
    ("maxInterval cannot be less than baseInterval", TRANSLATED),
    ("the limit is too high; at most", TRANSLATED),
    ("`limit` is missing; it is required", TRANSLATED),
    ("the body cannot be expanded", "Envoy refuses it"),
    ("is not a status of an answer; use 200 to 599", "Envoy refuses it"),
    (".contentType: the value has a control character", "no response could have it"),
    ("is not a header name; use letters", "no request would ever match"),
    ("is not a prime number; use one", TRANSLATED),
    ("DynamicModule is not supported; use", "Envoy Gateway takes it and does nothing"),
    ("is not the name of a cookie; use", "no request would ever have it"),
    ("is not an attribute of a cookie", "the cookie could not be set"),
    ("is not the value of an attribute; use", "the same"),
    ("expected the path of a request", "no backend would answer the check"),
    ("a cost by metadata is not supported", "there is no metadata here: nothing would be counted"),
    (".number: `-1` is out of range", "Envoy Gateway cannot decode it"),
    (".number: `-2147483648` is out of range", "the same"),
    (".numTrustedHops: `-", "the same"),
    (".maxAcceptPerSocketEvent: `-", "the same"),
    (".maxRequestsPerConnection: `-", "the same"),
    ("use a number from 65535 to 2147483647", TRANSLATED),
    ("frames the message or names its host; it cannot be changed", "it would break the framing"),
    ("operators of Envoy, such as", "they would be sent as they are written"),
    ("nothing is changed; write a change or leave the field out", TRANSLATED),
    ("; known here: StrategicMerge, JSONMerge", "Envoy Gateway has these types only"),
    ("; did you mean `StrategicMerge`", "the same"),
    ("; did you mean `JSONMerge`", "the same"),
];

const TRANSLATED: &str = "Envoy Gateway refuses it when it translates the policy";

/// What an API server refuses and we take: the end of a field and what is said of it, and why.
const TAKEN: &[(&str, &str, &str)] = &[
    ("spec.targetRef", "group is required", "there is one group that it can be"),
    ("]", "group is required", "the same, of `targetRefs`"),
];

/// What we say of a value that cannot be read. An API server asks its rules about the rest all the
/// same; we ask ours about an object that was read.
const NOT_READ: &[&str] = &[" is out of range; ", " is not a duration; "];

/// How the two differ, if they do.
fn difference(theirs: &[Refusal], ours: &[String]) -> Option<String> {
    let is_taken = |one: &Refusal| {
        let mut taken = TAKEN.iter();
        taken.any(|(field, said, _)| one.field.ends_with(field) && one.message == *said)
    };
    if ours.is_empty() && theirs.iter().all(is_taken) {
        return None;
    }
    let on_purpose = |one: &String| ON_PURPOSE.iter().any(|(field, _)| one.contains(field));
    match (theirs.is_empty(), ours.is_empty()) {
        (true, false) if ours.iter().all(on_purpose) => None,
        (true, false) => Some(format!("only we refuse: {ours:#?}")),
        (false, true) => Some(format!("only an API server refuses: {theirs:#?}")),
        _ if ours.iter().any(|one| NOT_READ.iter().any(|said| one.contains(said))) => None,
        _ if theirs.iter().any(is_taken) => None,
        _ => {
            // Who searches for upstream's words finds them.
            let is_said = |refusal: &Refusal| ours.iter().any(|one| one.contains(&refusal.message));
            let unsaid = theirs.iter().find(|one| one.is_upstreams && !is_said(one))?;
            Some(format!("we do not say what upstream says: {unsaid:#?} but {ours:#?}"))
        }
    }
}

#[test]
fn upstreams_manifests_are_taken_and_its_invalid_examples_are_not() {
    let Some(top) = upstream() else { return };
    let crds = Crds::read(&top.join("config/crd/experimental"), GATEWAY_API);
    let manifests = objects(&crds, &top.join("conformance"));
    assert!(manifests.len() > 300, "{} manifests", manifests.len());
    for object in &manifests {
        let theirs = crds.refusals(object).expect("the kind is there");
        assert!(theirs.is_empty(), "{object}: {theirs:#?}");
        let ours = ours(object);
        assert!(ours.is_empty(), "{object}: {ours:#?}");
    }
    let invalid = objects(&crds, &top.join("hack/invalid-examples"));
    assert!(invalid.len() > 30, "{} examples", invalid.len());
    for object in &invalid {
        let theirs = crds.refusals(object).expect("the kind is there");
        assert!(!theirs.is_empty(), "an API server would take {object}");
        assert!(!ours(object).is_empty(), "we take {object}");
    }
}

#[test]
fn objects_are_refused_as_an_api_server_would() {
    let Some(top) = upstream() else { return };
    let crds = Crds::read(&top.join("config/crd/experimental"), GATEWAY_API);
    let mut seeds = objects(&crds, &top.join("conformance"));
    seeds.extend(objects(&crds, &top.join("hack/invalid-examples")));
    made_objects_are_judged_alike(&crds, KINDS, &seeds);
}

/// Makes objects of `seeds`, and asks both for their opinion.
fn made_objects_are_judged_alike(crds: &Crds, kinds: &[&str], seeds: &[Json]) {
    let fitting = mutate::fitting(crds.patterns.iter());
    let mut refused = 0;
    let mut differences = Vec::new();
    for number in 0..MADE {
        let mut hand = Hand { rng: Rng::with_seed(number), fitting: &fitting };
        let object = made(&mut hand, crds, kinds, seeds);
        let theirs = crds.refusals(&object).expect("the kind is there");
        let ours = ours(&object);
        refused += u64::from(!theirs.is_empty());
        if let Some(difference) = difference(&theirs, &ours) {
            differences.push(format!("object {number}: {object}\n{difference}"));
        }
    }
    assert!(differences.is_empty(), "{}: {}", differences.len(), differences.join("\n"));
    // Objects that are all right, or all wrong, or all wrong in the same way, would say nothing.
    assert!((MADE / 5..MADE * 4 / 5).contains(&refused), "{refused} of {MADE} are refused");
}

#[test]
fn every_rule_is_broken_by_hand_and_both_say_so() {
    let Some(top) = upstream() else { return };
    let crds = Crds::read(&top.join("config/crd/experimental"), GATEWAY_API);
    every_rule_is_broken(&crds, broken::table(), broken::UNREACHABLE);
}

/// Holds a table of objects against the rules that they break, and asks for one of each rule.
fn every_rule_is_broken(
    crds: &Crds,
    table: Vec<(&'static str, Json)>,
    unreachable: &[(&str, &str)],
) {
    let mut unbroken = crds.messages();
    let mut wrong = Vec::new();
    for (message, object) in table {
        let theirs = crds.refusals(&object).expect("the kind is there");
        if !theirs.iter().any(|refusal| refusal.is_upstreams && refusal.message == message) {
            wrong.push(format!("{object} does not break `{message}`: {theirs:#?}"));
        }
        wrong.extend(difference(&theirs, &ours(&object)).map(|said| format!("{object}\n{said}")));
        unbroken.remove(message);
    }
    assert!(wrong.is_empty(), "{}: {}", wrong.len(), wrong.join("\n"));
    for (message, why) in unreachable {
        assert!(unbroken.remove(*message), "`{message}` is broken, though {why}");
    }
    assert!(unbroken.is_empty(), "nothing breaks {unbroken:#?}");
}

#[test]
fn lists_are_merged_by_the_keys_that_the_crds_give_them() {
    let Some(top) = upstream() else { return };
    let theirs = Crds::read(&top.join("config/crd/experimental"), GATEWAY_API).shapes();
    assert!(theirs["Gateway"].len() > 2, "{theirs:?}");
    for (kind, theirs) in theirs {
        assert_eq!(edge_gateway::fuzz::shapes(&kind), theirs, "{kind}");
    }
}

/// The kinds of the Gateway API, the ones with more to change more often.
const KINDS: &[&str] = &[
    "GatewayClass",
    "Gateway",
    "Gateway",
    "HTTPRoute",
    "HTTPRoute",
    "HTTPRoute",
    "GRPCRoute",
    "TLSRoute",
    "TCPRoute",
    "UDPRoute",
    "ListenerSet",
    "BackendTLSPolicy",
    "ReferenceGrant",
];

/// One of upstream's objects with one to three changes.
fn made(hand: &mut Hand<'_>, crds: &Crds, kinds: &[&str], seeds: &[Json]) -> Json {
    let kind = kinds[hand.rng.usize(..kinds.len())];
    let alike: Vec<&Json> = seeds.iter().filter(|object| object["kind"] == kind).collect();
    let mut object = alike[hand.rng.usize(..alike.len())].clone();
    let others: Vec<&Json> = alike.iter().map(|object| &object["spec"]).collect();
    let schema = &crds.schema(&object).expect("the kind is there")["properties"]["spec"];
    for _ in 0..hand.rng.u8(1..4) {
        let spec = &mut object["spec"];
        mutate::change(hand, schema, spec, &others);
    }
    // Other manifests' names are no matter here.
    object["metadata"] = json!({ "name": text(&object["metadata"]["name"]) });
    object
}

const ENVOY_GATEWAY: &str = "gateway.envoyproxy.io";
const TRAFFIC: &str = "BackendTrafficPolicy";

const CLIENT: &str = "ClientTrafficPolicy";

/// Envoy Gateway's CRD and its examples of BackendTrafficPolicies that the CRD takes.
fn traffic_policies() -> Option<(Crds, Vec<Json>)> {
    let (crds, examples) = policies("", "backendTrafficPolicies")?;
    assert!(examples.len() > 100, "{} examples", examples.len());
    Some((crds, examples))
}

/// The same of ClientTrafficPolicies.
fn client_policies() -> Option<(Crds, Vec<Json>)> {
    let (crds, examples) = policies("client", "clientTrafficPolicies")?;
    assert!(examples.len() > 60, "{} examples", examples.len());
    Some((crds, examples))
}

/// A policy of Envoy Gateway with one target, and these fields beside it.
fn envoy_policy(kind: &str, target: &str, spec: &Json) -> Json {
    let target = json!({ "group": "gateway.networking.k8s.io", "kind": target, "name": "a" });
    let mut whole = json!({ "targetRefs": [target] });
    for (field, value) in spec.as_object().into_iter().flatten() {
        whole[field] = value.clone();
    }
    json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": kind,
        "metadata": { "name": "a" },
        "spec": whole,
    })
}

/// The CRD in a folder, and the examples in it that the CRD takes; `list` is their field.
fn policies(folder: &str, list: &str) -> Option<(Crds, Vec<Json>)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.cache/envoy-gateway").join(folder);
    let there = top.join("crds").is_dir().then_some(top);
    let top = needs("Envoy Gateway's CRDs, fetched by Go", there, INSTALL)?;
    let crds = Crds::read(&top.join("crds"), ENVOY_GATEWAY);
    let inputs = files(&top.join("examples")).into_iter().flat_map(|file| yaml(&file));
    let lists = inputs.filter_map(|input| input.get(list).cloned());
    let mut examples: Vec<Json> =
        lists.flat_map(|list| list.as_array().cloned().unwrap_or_default()).collect();
    // Its tests do not go through an API server, so that some examples are refused by one.
    examples.retain(|object| crds.refusals(object).is_some_and(|found| found.is_empty()));
    Some((crds, examples))
}

#[test]
fn traffic_policies_of_envoy_gateway_are_taken() {
    let Some((_, examples)) = traffic_policies() else { return };
    are_taken(&examples);
}

/// Asserts that we refuse none of the objects, except on purpose.
fn are_taken(examples: &[Json]) {
    let on_purpose = |one: &String| ON_PURPOSE.iter().any(|(said, _)| one.contains(said));
    for object in examples {
        let ours = ours(object);
        assert!(ours.iter().all(on_purpose), "{object}: {ours:#?}");
    }
}

#[test]
fn traffic_policies_are_refused_as_an_api_server_would() {
    let Some((crds, mut seeds)) = traffic_policies() else { return };
    seeds.extend(broken_traffic::valid());
    for object in broken_traffic::valid() {
        let theirs = crds.refusals(&object).expect("the kind is there");
        assert!(theirs.is_empty(), "{object}: {theirs:#?}");
    }
    made_objects_are_judged_alike(&crds, &[TRAFFIC], &seeds);
}

#[test]
fn every_rule_of_traffic_policies_is_broken_by_hand_and_both_say_so() {
    let Some((crds, _)) = traffic_policies() else { return };
    every_rule_is_broken(&crds, broken_traffic::table(), broken_traffic::UNREACHABLE);
}

#[test]
fn lists_and_defaults_of_traffic_policies_are_those_of_the_crd() {
    let Some((crds, _)) = traffic_policies() else { return };
    assert_eq!(edge_gateway::fuzz::shapes(TRAFFIC), crds.shapes()[TRAFFIC]);
    assert_eq!(edge_gateway::fuzz::defaults(TRAFFIC), crds.defaults(TRAFFIC));
}

#[test]
fn client_policies_of_envoy_gateway_are_taken() {
    let Some((_, examples)) = client_policies() else { return };
    are_taken(&examples);
}

#[test]
fn client_policies_are_refused_as_an_api_server_would() {
    let Some((crds, mut seeds)) = client_policies() else { return };
    seeds.extend(broken_client::valid());
    for object in broken_client::valid() {
        let theirs = crds.refusals(&object).expect("the kind is there");
        assert!(theirs.is_empty(), "{object}: {theirs:#?}");
    }
    made_objects_are_judged_alike(&crds, &[CLIENT], &seeds);
}

#[test]
fn every_rule_of_client_policies_is_broken_by_hand_and_both_say_so() {
    let Some((crds, _)) = client_policies() else { return };
    every_rule_is_broken(&crds, broken_client::table(), &[]);
}

#[test]
fn lists_and_defaults_of_client_policies_are_those_of_the_crd() {
    let Some((crds, _)) = client_policies() else { return };
    assert_eq!(edge_gateway::fuzz::shapes(CLIENT), crds.shapes()[CLIENT]);
    assert_eq!(edge_gateway::fuzz::defaults(CLIENT), crds.defaults(CLIENT));
}
