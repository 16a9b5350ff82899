//! Precedence, conflicts, selectors and merges of policies, from YAML to the spec that applies.

use std::fmt::Write;
use std::path::Path;

use crate::api::ConditionStatus;
use crate::graph::credentials::Readiness;
use crate::graph::listener_sets::all_listeners;
use crate::graph::{Graph, Held, LoadFacts, ObjectStatuses, build, statuses};
use crate::provider::parse_bytes;

use super::security::Guard;

/// Listeners `a`, `b` and `s` (of a ListenerSet), and a route on all of them with a rule `first`
/// and one without a name.
const BASE: &str = "
kind: GatewayClass
apiVersion: gateway.networking.k8s.io/v1
metadata: {name: eg}
spec: {controllerName: test/controller}
---
kind: Gateway
apiVersion: gateway.networking.k8s.io/v1
metadata: {name: gw}
spec:
  gatewayClassName: eg
  allowedListeners: {namespaces: {from: Same}}
  listeners:
    - {name: a, protocol: HTTP, port: 80, allowedRoutes: {namespaces: {from: All}}}
    - {name: b, protocol: HTTP, port: 81}
---
kind: ListenerSet
apiVersion: gateway.networking.k8s.io/v1
metadata: {name: set}
spec:
  parentRef: {name: gw}
  listeners: [{name: s, protocol: HTTP, port: 82}]
---
kind: HTTPRoute
apiVersion: gateway.networking.k8s.io/v1
metadata: {name: web, labels: {team: x}}
spec:
  parentRefs: [{name: gw}, {kind: ListenerSet, name: set}]
  rules: [{name: first}, {matches: [{path: {value: /other}}]}]
---
kind: HTTPRoute
apiVersion: gateway.networking.k8s.io/v1
metadata: {name: web, namespace: else, labels: {team: x}}
spec: {parentRefs: [{name: gw, namespace: default}]}
---
kind: Namespace
apiVersion: v1
metadata: {name: else, labels: {tier: gold}}
";

const GATEWAY: &str = "{kind: Gateway, name: gw}";
const GATEWAY_LISTENER: &str = "{kind: Gateway, name: gw, sectionName: a}";
const SET: &str = "{kind: ListenerSet, name: set}";
const SET_LISTENER: &str = "{kind: ListenerSet, name: set, sectionName: s}";
const ROUTE: &str = "{kind: HTTPRoute, name: web}";
const RULE: &str = "{kind: HTTPRoute, name: web, sectionName: first}";

/// A SecurityPolicy with one target, whose CORS allows the origin `https://NAME.test`.
fn policy(name: &str, target: &str) -> String {
    let target = target.replace("{kind", "{group: gateway.networking.k8s.io, kind");
    written(&format!("name: {name}"), &format!("targetRefs: [{target}]"), name)
}

fn written(metadata: &str, targets: &str, name: &str) -> String {
    format!(
        "---\nkind: SecurityPolicy\napiVersion: gateway.envoyproxy.io/v1alpha1\n\
         metadata: {{{metadata}}}\nspec:\n  {targets}\n  \
         cors: {{allowOrigins: ['https://{name}.test']}}\n"
    )
}

fn with_graph<T>(yaml: &str, look: impl FnOnce(&Graph<'_>) -> T) -> T {
    let loaded = parse_bytes(Path::new("in.yaml"), yaml.as_bytes(), &|_| None);
    assert!(!loaded.is_fatal(), "{:?}", loaded.diagnostics([]));
    let ready = |_: &_| Readiness { ready: true, problem: None };
    let facts = LoadFacts {
        controller_name: "test/controller",
        enable_backend: true,
        domain: None,
        certificate: &ready,
        client_certificate: &ready,
        authorities: &|_| Ok(()),
        server_name: &|_| true,
        unusable_address: &|_| None,
        unusable_port: &|_, _| None,
        pool: None,
        held: &Held::new(),
    };
    look(&build(&loaded.objects, &facts))
}

/// The policy of each rule of route `default/web` on each listener: the name in its origin, `500`
/// if it is closed, `-` without a policy. The listeners are in the order a, b, s; for each, the
/// rule `first` comes first.
fn applied(yaml: &str) -> Vec<String> {
    with_graph(yaml, |graph| {
        let route = graph.routes.iter().find(|route| route.key.namespace == "default").unwrap();
        let mut found = Vec::new();
        for listener in all_listeners(&graph.gateways, &graph.listener_sets) {
            let of_listener = graph.security.on_listener(listener);
            for rule in [0, 1] {
                found.push(shown(graph.security.on_rule(route, rule, of_listener)));
            }
        }
        found
    })
}

fn shown(guard: Option<Guard<'_>>) -> String {
    match guard {
        None => "-".into(),
        Some(Guard::Refused) => "500".into(),
        Some(Guard::Policy(policy)) => {
            let Some(cors) = &policy.spec.cors else { return "no cors".into() };
            let origins = cors.allow_origins.join(" ");
            let name = origins.replace("https://", "").replace(".test", "");
            match cors.max_age {
                Some(age) => format!("{name} {age}"),
                None => name,
            }
        }
    }
}

#[test]
fn the_most_specific_policy_applies_whole() {
    // (target of one more policy, policies by listener and rule)
    let table = [
        (GATEWAY, ["p0"; 6]),
        // It does not apply to listeners of ListenerSets.
        (GATEWAY_LISTENER, ["p1", "p1", "p0", "p0", "p0", "p0"]),
        (SET, ["p1", "p1", "p0", "p0", "p2", "p2"]),
        (SET_LISTENER, ["p1", "p1", "p0", "p0", "p3", "p3"]),
        (ROUTE, ["p4"; 6]),
        (RULE, ["p5", "p4", "p5", "p4", "p5", "p4"]),
    ];
    let mut yaml = BASE.to_owned();
    for (number, (target, want)) in table.into_iter().enumerate() {
        yaml.push_str(&policy(&format!("p{number}"), target));
        assert_eq!(applied(&yaml), want, "{target}");
    }
    assert_eq!(applied(BASE), ["-"; 6]);
    assert_eq!(
        applied(&(BASE.to_owned() + &policy("p", RULE))),
        ["p", "-", "p", "-", "p", "-"],
        "the other rule has none"
    );
}

#[test]
fn of_two_policies_for_one_target_the_older_or_the_first_by_name_is_accepted() {
    let closed = ["500"; 6];
    let on_a = ["500", "500", "-", "-", "-", "-"];
    // (target of both, timestamps of `a` and `b`, the loser, what applies)
    let table = [
        (GATEWAY, None, None, "b", closed),
        (GATEWAY, None, Some("2026-01-01T00:00:00Z"), "a", closed),
        (GATEWAY, Some("2026-01-02T00:00:00Z"), Some("2026-01-01T00:00:00Z"), "a", closed),
        (GATEWAY_LISTENER, None, None, "b", on_a),
        (SET, None, None, "b", ["-", "-", "-", "-", "500", "500"]),
        (ROUTE, None, None, "b", closed),
        (RULE, None, None, "b", ["500", "-", "500", "-", "500", "-"]),
    ];
    for (target, of_a, of_b, loser, want) in table {
        let mut yaml = BASE.to_owned();
        for (name, stamp) in [("a", of_a), ("b", of_b)] {
            let stamp = stamp.map(|stamp| format!("creationTimestamp: {stamp}, "));
            let named = format!("metadata: {{{}name: {name}", stamp.unwrap_or_default());
            yaml += &policy(name, target).replace(&format!("metadata: {{name: {name}"), &named);
        }
        assert_eq!(applied(&yaml), want, "{target}");
        let refused = with_graph(&yaml, |graph| refused(&statuses_of(graph)));
        assert_eq!(refused, [(loser.to_owned(), "Conflicted")], "{target}");
    }
}

fn statuses_of(graph: &Graph<'_>) -> ObjectStatuses {
    statuses(graph, &vec![Vec::new(); graph.routes.len()])
}

/// Returns the policies with an ancestor that does not accept them, and the reason.
fn refused(statuses: &ObjectStatuses) -> Vec<(String, &'static str)> {
    let each = statuses.policies.iter().filter_map(|policy| {
        let mut conditions = policy.ancestors.iter().flat_map(|of| &of.conditions);
        let refused = conditions.find(|of| of.status == ConditionStatus::False)?;
        Some((policy.key.name.clone(), refused.reason))
    });
    each.collect()
}

#[test]
fn a_policy_that_cannot_be_applied_closes_its_targets() {
    let no_listener = "{kind: Gateway, name: gw, sectionName: nowhere}";
    let no_rule = "{kind: HTTPRoute, name: web, sectionName: nowhere}";
    let (wrong_kind, no_route) = ("{kind: Service, name: web}", "{kind: HTTPRoute, name: wob}");
    // (targets, what applies, the reason of its status)
    let table = [
        (no_listener.to_owned(), "500", Some("TargetNotFound")),
        (no_rule.to_owned(), "500", Some("TargetNotFound")),
        (format!("{wrong_kind}, {GATEWAY}"), "500", Some("Invalid")),
        (no_route.to_owned(), "-", None),
        (format!("{no_route}, {GATEWAY}"), "p", None),
    ];
    for (targets, want, reason) in table {
        let yaml = BASE.to_owned() + &policy("p", &targets);
        assert_eq!(applied(&yaml), [want; 6], "{targets}");
        let refused = with_graph(&yaml, |graph| refused(&statuses_of(graph)));
        assert_eq!(refused.first().map(|(_, reason)| *reason), reason, "{targets}");
    }
    let problem = with_graph(&(BASE.to_owned() + &policy("p", no_route)), |graph| {
        graph.faults.last().unwrap().problem.clone()
    });
    assert_eq!(problem, "HTTPRoute default/wob does not exist; did you mean `web`?");
}

#[test]
fn a_selector_needs_a_grant_in_another_namespace() {
    let grant = |kind: &str, from: &str| {
        format!(
            "---\nkind: ReferenceGrant\napiVersion: gateway.networking.k8s.io/v1\n\
             metadata: {{name: g, namespace: else}}\nspec:\n  \
             from: [{{group: gateway.envoyproxy.io, kind: {kind}, namespace: {from}}}]\n  \
             to: [{{group: gateway.networking.k8s.io, kind: HTTPRoute}}]\n"
        )
    };
    let granted = grant("SecurityPolicy", "default");
    let labels = "matchLabels: {team: x}";
    let all = "matchLabels: {team: x}, namespaces: {from: All}";
    let gold = "matchLabels: {team: x}, namespaces: {from: Selector, selector: \
                {matchLabels: {tier: gold}}}";
    let expression = |operator: &str, values: &str| {
        format!("matchExpressions: [{{key: team, operator: {operator}{values}}}]")
    };
    // (selector, grants, whether `default/web` and `else/web` are selected, warnings)
    let table = [
        (labels.to_owned(), granted.clone(), (true, false), 0),
        ("matchLabels: {team: y}".to_owned(), granted.clone(), (false, false), 0),
        (all.to_owned(), granted.clone(), (true, true), 0),
        (all.to_owned(), String::new(), (true, false), 1),
        (all.to_owned(), grant("SecurityPolicy", "third"), (true, false), 1),
        (all.to_owned(), grant("BackendTrafficPolicy", "default"), (true, false), 1),
        (gold.to_owned(), granted.clone(), (false, true), 0),
        (gold.replace("gold", "lead"), granted.clone(), (false, false), 0),
        (expression("In", ", values: [w, x]"), granted.clone(), (true, false), 0),
        (expression("NotIn", ", values: [x]"), granted.clone(), (false, false), 0),
        (expression("Exists", ""), granted.clone(), (true, false), 0),
        (expression("DoesNotExist", ""), granted.clone(), (false, false), 0),
        (expression("Near", ""), granted, (false, false), 1),
    ];
    for (selector, grants, want, told) in table {
        let targets = format!("targetSelectors: [{{kind: HTTPRoute, {selector}}}]");
        let yaml = format!("{BASE}{}{grants}", written("name: p", &targets, "p"));
        with_graph(&yaml, |graph| {
            let listener = &graph.gateways[0].listeners[0];
            let on = |namespace: &str| {
                let mut routes = graph.routes.iter();
                let route = routes.find(|route| route.key.namespace == namespace).unwrap();
                let of_listener = graph.security.on_listener(listener);
                shown(graph.security.on_rule(route, 0, of_listener)) == "p"
            };
            assert_eq!((on("default"), on("else")), want, "{selector}\n{grants}");
            let faults = graph.faults.iter().filter(|fault| fault.object.name == "p");
            assert_eq!(faults.count(), told, "{selector}\n{grants} {:?}", graph.faults);
        });
    }
}

#[test]
fn a_policy_is_merged_with_the_nearest_one_of_each_listener() {
    let child = |name: &str, target: &str, merge_type: &str| {
        let policy = policy(name, target);
        let (before, _) = policy.split_once("cors").unwrap();
        format!("{before}mergeType: {merge_type}\n  cors: {{maxAge: 5m}}\n")
    };
    let parents = [GATEWAY, GATEWAY_LISTENER, SET].iter().enumerate();
    let parents: String =
        parents.map(|(place, target)| policy(&format!("p{place}"), target)).collect();
    for merge_type in ["StrategicMerge", "JSONMerge"] {
        let route = child("c", ROUTE, merge_type);
        let yaml = format!("{BASE}{parents}{route}");
        let want = ["p1 5m", "p1 5m", "p0 5m", "p0 5m", "p2 5m", "p2 5m"];
        assert_eq!(applied(&yaml), want, "{merge_type}");
        // A rule is merged with the parents of its route, not with the policy of the route.
        let yaml = format!("{BASE}{parents}{}{}", policy("r", ROUTE), child("c", RULE, merge_type));
        assert_eq!(applied(&yaml), ["p1 5m", "r", "p0 5m", "r", "p2 5m", "r"], "{merge_type}");
        // Without a parent the policy applies alone.
        assert_eq!(applied(&format!("{BASE}{route}")), [" 5m"; 6], "{merge_type}");
        // A parent that cannot be applied closes the targets of the policies that are merged with
        // it.
        let twice = format!("{BASE}{route}{}{}", policy("x", SET), policy("y", SET));
        assert_eq!(applied(&twice), [" 5m", " 5m", " 5m", " 5m", "500", "500"], "{merge_type}");
        let unusable = policy("x", SET).replace("cors:", "jwt: {}\n  cors:");
        let unusable = format!("{BASE}{route}{unusable}");
        assert_eq!(applied(&unusable), [" 5m", " 5m", " 5m", " 5m", "500", "500"], "{merge_type}");
    }
    let wrong = format!("{BASE}{}", child("c", GATEWAY, "JSONMerge"));
    assert_eq!(applied(&wrong), ["500"; 6], "a Gateway has nothing above it");
    let wrong = format!("{BASE}{parents}{}", child("c", ROUTE, "Replace"));
    assert_eq!(applied(&wrong), ["500"; 6]);
}

#[test]
fn a_status_lists_sixteen_ancestors_the_refused_ones_first() {
    let mut yaml = BASE.to_owned();
    for number in 10..30 {
        write!(
            yaml,
            "---\nkind: Gateway\napiVersion: gateway.networking.k8s.io/v1\n\
             metadata: {{name: g{number}, labels: {{many: yes}}}}\nspec:\n  \
             gatewayClassName: eg\n  listeners: [{{name: l, protocol: HTTP, port: 90{number}}}]\n"
        )
        .unwrap();
    }
    let yaml = yaml.replace("many: yes", "many: 'yes'");
    let many = "targetSelectors: [{kind: Gateway, matchLabels: {many: 'yes'}}]";
    let listener = "{kind: Gateway, name: g28, sectionName: l}";
    let yaml = yaml
        + &policy("first", "{kind: Gateway, name: g29}")
        + &policy("listener", listener)
        + &written("name: many", many, "many");
    with_graph(&yaml, |graph| {
        let statuses = statuses_of(graph);
        let policy = statuses.policies.iter().find(|policy| policy.key.name == "many").unwrap();
        let names: Vec<_> = policy.ancestors.iter().map(|of| &*of.ancestor.name).collect();
        assert_eq!(names.len(), 16);
        assert_eq!(names[..4], ["g29", "g28", "g10", "g11"]);
        for (place, of) in policy.ancestors.iter().enumerate() {
            let kinds: Vec<_> = of.conditions.iter().map(|condition| condition.kind).collect();
            let want: &[&str] = match place {
                1 => &["Accepted", "Overridden"],
                15 => &["Accepted", "Aggregated"],
                _ => &["Accepted"],
            };
            assert_eq!(kinds, want, "{place}");
        }
    });
}

#[test]
fn a_status_tells_of_each_listener_by_itself() {
    let of_a = "---\nkind: HTTPRoute\napiVersion: gateway.networking.k8s.io/v1\n\
                metadata: {name: of-a}\nspec: {parentRefs: [{name: gw, sectionName: a}]}\n";
    let both = format!("{GATEWAY_LISTENER}, {}", GATEWAY_LISTENER.replace("Name: a", "Name: b"));
    let late = "targetRef: {group: gateway.networking.k8s.io, kind: ListenerSet, name: set}";
    let yaml = BASE.to_owned()
        + of_a
        + &policy("both", &both)
        + &policy("route", "{kind: HTTPRoute, name: of-a}")
        + &policy("set", SET)
        + &written("name: so-late", late, "late");
    let conditions = |statuses: &ObjectStatuses, name: &str| -> Vec<Vec<&'static str>> {
        let policy = statuses.policies.iter().find(|policy| policy.key.name == name).unwrap();
        let kinds = policy
            .ancestors
            .iter()
            .map(|ancestor| ancestor.conditions.iter().map(|condition| condition.kind).collect());
        kinds.collect()
    };
    with_graph(&yaml, |graph| {
        let statuses = statuses_of(graph);
        let want = [vec!["Accepted", "Overridden"], vec!["Accepted"]];
        assert_eq!(conditions(&statuses, "both"), want);
        // Its `targetRef` is deprecated, but it is not attached.
        assert_eq!(conditions(&statuses, "so-late"), [vec!["Accepted"]]);
    });
}
