//! Golden tests of the translation from YAML to a snapshot. Each `tests/translate/KIND/SITUATION/`
//! has `in.yaml`, written by hand, and `out.txt`, the recorded diagnostics, statuses and snapshot.
//! `UPDATE=1` records `out.txt` anew; review each new recording.
//!
//! Lines of `in.yaml` that begin with `#: ` set up the situation: `#: disable Backend`,
//! `#: domain NAME`, `#: lineage NAME` (certbot has one of that name), `#: unusable ADDRESS`,
//! `#: taken PORT`, `#: pool CIDR` and `#: held NAMESPACE/GATEWAY=ADDRESS`. `DOMAIN` is set in the
//! environment. `"${TLS_CRT}"` and `"${TLS_KEY}"`, a matching pair, and `"${OTHER_KEY}"` are
//! inserted before the text is read, because variables are not replaced in data.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use crate::api::{Condition, ConditionStatus, Object};
use crate::compile::{Compiled, Inputs, compile};
use crate::config::{CheckedObject, Fault, Settings};
use crate::describe;
use crate::graph::{Held, ListenerStatus, ObjectStatuses};
use crate::net::AddressPool;
use crate::observe::LogFiles;
use crate::provider::{Loaded, load, parse_bytes};
use crate::snapshot::{ClientLimits, Snapshot};
use crate::tls::{CertStore, Tickets};
use crate::upstream::Upstreams;

#[test]
fn every_situation_comes_to_what_was_recorded() {
    let mut wrong = Vec::new();
    let mut situations = 0;
    for kind in folders(&repository("tests/translate")) {
        for situation in folders(&kind) {
            let Ok(text) = fs::read_to_string(situation.join("in.yaml")) else { continue };
            situations += 1;
            let scene = Scene::of(&text);
            let loaded = parsed(&text);
            assert!(!loaded.is_fatal(), "{}: {:?}", situation.display(), loaded.diagnostics([]));
            check(&situation, &scene.outcome(&loaded, in_short), &mut wrong);
        }
    }
    assert!(situations > 0);
    assert!(wrong.is_empty(), "{}\nUPDATE=1 records it", wrong.join("\n"));
}

#[test]
fn the_deployment_comes_to_what_was_recorded() {
    let mut wrong = Vec::new();
    for name in ["dev", "prod"] {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let fixture = repository("tests/fixtures/deployment");
        symlink(&fixture, root.path().join("etc/envoy-gateway")).unwrap();
        let file = fixture.join(format!("standalone-{name}.yaml"));
        let (settings, _) = Settings::read(&file, Some(root.path()), &environment).unwrap();
        let loaded = load(&settings, &environment);
        let scene =
            Scene { settings, ..Scene::of("#: domain shop.example\n#: lineage shop.example") };
        let status = |statuses: &ObjectStatuses| statuses.to_string();
        let outcome = scene.outcome(&loaded, status);
        let outcome = outcome.replace(&root.path().display().to_string(), "");
        check(&repository("tests/translate/deployment").join(name), &outcome, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}\nUPDATE=1 records it", wrong.join("\n"));
}

#[test]
fn a_cluster_whose_settings_are_unchanged_lives_on() {
    let yaml = |port: u16| {
        let text = fs::read_to_string(repository("tests/translate/http_route/weights/in.yaml"));
        text.unwrap().replacen("port: 8001", &format!("port: {port}"), 1)
    };
    let scene = Scene::of("");
    let first = scene.compile(&parsed(&yaml(8001)).objects, &Snapshot::default()).snapshot;
    let second = scene.compile(&parsed(&yaml(9001)).objects, &first).snapshot;

    assert_eq!((first.generation, second.generation), (1, 2));
    let mut kept = 0;
    for (settings, cluster) in &second.clusters {
        match first.clusters.get(settings) {
            Some(old) => {
                assert!(Arc::ptr_eq(old, cluster), "{settings:?}");
                kept += 1;
            }
            None => assert_eq!(&*settings.name, "backend/default/one"),
        }
    }
    assert_eq!(kept, second.clusters.len() - 1);
}

#[test]
fn binds_and_listeners_have_the_limits_that_are_handed_in() {
    let text = fs::read_to_string(repository("tests/translate/http_route/weights/in.yaml"));
    let mut scene = Scene::of("");
    scene.client_limits = Arc::new(ClientLimits { head_bytes: 4711, ..ClientLimits::default() });
    let snapshot = scene.compile(&parsed(&text.unwrap()).objects, &Snapshot::default()).snapshot;

    let of_binds = snapshot.binds.iter().map(|bind| &bind.limits);
    let of_listeners = snapshot.listeners().map(|(_, listener)| &listener.limits);
    let all: Vec<_> = of_binds.chain(of_listeners).collect();
    assert!(all.len() >= 2);
    assert!(all.iter().all(|limits| Arc::ptr_eq(limits, &scene.client_limits)), "{all:?}");
}

/// Compiles each situation with each line left out; nothing may panic.
#[test]
fn a_line_that_is_missing_stops_no_compilation() {
    for kind in folders(&repository("tests/translate")) {
        for situation in folders(&kind) {
            let Ok(text) = fs::read_to_string(situation.join("in.yaml")) else { continue };
            let scene = Scene::of(&text);
            let lines: Vec<&str> = text.lines().collect();
            for missing in 0..lines.len() {
                let rest: Vec<&str> = lines
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| *at != missing)
                    .map(|(_, line)| *line)
                    .collect();
                let rest = rest.join("\n");
                let loaded = parsed(&rest);
                let compiled = scene.compile(&loaded.objects, &Snapshot::default());
                let _ = (in_short(&compiled.statuses), describe::snapshot(&compiled.snapshot));
            }
        }
    }
}

/// Each rule is checked in one place: a fault that `config` finds in a value is not found again by
/// `graph` or `compile`, whatever the value is.
///
/// Only the changed document is read again, and only a situation with a fault is compiled: without
/// one there is nothing to find twice.
#[test]
fn no_fault_is_found_twice() {
    const WRONG: [&str; 2] = ["\"\"", "a b"];
    let mut twice = BTreeSet::new();
    for kind in folders(&repository("tests/translate")) {
        for situation in folders(&kind) {
            let Ok(text) = fs::read_to_string(situation.join("in.yaml")) else { continue };
            let scene = Scene::of(&text);
            let documents = documents(&text);
            let objects = documents.iter().map(|lines| parsed(&lines.join("\n")).objects);
            let objects: Vec<Vec<CheckedObject>> = objects.collect();
            let mut number = 0;
            for (document, lines) in documents.iter().enumerate() {
                for place in 0..lines.len() {
                    let wrong = WRONG[number % WRONG.len()];
                    number += 1;
                    let Some((before, _)) = lines[place].split_once(": ") else { continue };
                    let changed = format!("{before}: {wrong}");
                    let all = [&lines[..place], &[&*changed], &lines[place + 1..]].concat();
                    let mut objects = objects.clone();
                    objects[document] = parsed(&all.join("\n")).objects;
                    let objects = without_duplicates(objects.into_iter().flatten());
                    let broken: Vec<_> = objects.iter().flat_map(|of| &of.faults).collect();
                    if broken.is_empty() {
                        continue;
                    }
                    for fault in scene.compile(&objects, &Snapshot::default()).faults {
                        let is_same = |one: &&&Fault| {
                            one.object == fault.object && one.field.starts_with(&fault.field)
                        };
                        if let Some(first) = broken.iter().find(is_same) {
                            twice.insert(format!("{} {first} // {fault}", fault.object.kind));
                        }
                    }
                }
            }
        }
    }
    assert!(twice.is_empty(), "{twice:#?}");
}

/// Returns the lines of each document of a text.
fn documents(text: &str) -> Vec<Vec<&str>> {
    let mut documents = vec![Vec::new()];
    for line in text.lines() {
        if line.starts_with("---") {
            documents.push(Vec::new());
        }
        documents.last_mut().unwrap().push(line);
    }
    documents
}

/// Returns the objects without those that a load would report as duplicates.
fn without_duplicates(objects: impl Iterator<Item = CheckedObject>) -> Vec<CheckedObject> {
    let mut known = HashSet::new();
    let may_repeat = |of: &Object| matches!(of, Object::SecurityPolicy(_) | Object::Unsupported(_));
    objects.filter(|of| may_repeat(&of.object) || known.insert(of.object.key())).collect()
}

#[test]
fn ten_thousand_routes_are_ten_thousand_rows() {
    const ROUTES: usize = 10_000;
    let mut yaml =
        fs::read_to_string(repository("tests/translate/http_route/simple/in.yaml")).unwrap();
    for n in 0..ROUTES {
        let backend = n % 100;
        write!(
            yaml,
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
             metadata: {{name: r{n}}}\n\
             spec:\n  parentRefs: [{{name: gw}}]\n  hostnames: [h{}.example.com]\n  rules:\n  \
             - matches: [{{path: {{value: /p{n}}}}}]\n    \
             backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: b{backend}}}]\n",
            n % 500,
        )
        .unwrap();
    }
    for n in 0..100 {
        write!(
            yaml,
            "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: Backend\nmetadata: {{name: b{n}}}\n\
             spec: {{endpoints: [{{ip: {{address: 10.0.0.1, port: {}}}}}]}}\n",
            n + 1
        )
        .unwrap();
    }
    let loaded = parsed(&yaml);
    assert!(loaded.diagnostics([]).is_empty(), "{:?}", loaded.diagnostics([]).first());

    let compiled = Scene::of("").compile(&loaded.objects, &Snapshot::default());

    assert!(compiled.faults.is_empty(), "{:?}", compiled.faults.first());
    let listener = compiled.snapshot.binds[0].listeners.best("h1.example.com").unwrap();
    assert_eq!(listener.routes().unwrap().rows().len(), ROUTES + 1);
    assert_eq!(compiled.snapshot.counts.routes, ROUTES + 1);
    assert_eq!(compiled.snapshot.clusters.len(), 101);
}

/// The inputs of a situation other than its objects.
struct Scene {
    settings: Settings,
    domain: Option<String>,
    letsencrypt: tempfile::TempDir,
    certificates: CertStore,
    tickets: Tickets,
    unusable: Vec<IpAddr>,
    taken: Vec<u16>,
    pool: Option<AddressPool>,
    held: Held,
    client_limits: Arc<ClientLimits>,
}

impl Scene {
    fn of(text: &str) -> Self {
        let letsencrypt = tempfile::tempdir().unwrap();
        let mut scene = Self {
            settings: Settings::of_paths(Vec::new()),
            domain: None,
            certificates: CertStore::new(letsencrypt.path().into()),
            letsencrypt,
            tickets: Tickets::new().unwrap(),
            unusable: Vec::new(),
            taken: Vec::new(),
            pool: None,
            held: Held::new(),
            client_limits: Arc::default(),
        };
        for line in text.lines().filter_map(|line| line.strip_prefix("#: ")) {
            match line.split_once(' ').unwrap() {
                ("disable", "Backend") => scene.settings.enable_backend = false,
                ("domain", name) => scene.domain = Some(name.into()),
                ("lineage", name) => lineage(scene.letsencrypt.path(), name),
                ("unusable", address) => scene.unusable.push(address.parse().unwrap()),
                ("taken", port) => scene.taken.push(port.parse().unwrap()),
                ("pool", range) => scene.pool = Some(range.parse().unwrap()),
                ("held", what) => {
                    let (holder, address) = what.split_once('=').unwrap();
                    scene.held.insert(holder.into(), address.parse().unwrap());
                }
                other => panic!("{other:?} sets no scene"),
            }
        }
        scene
    }

    fn compile(&self, objects: &[CheckedObject], previous: &Snapshot) -> Compiled {
        let unusable = |address: IpAddr| {
            let unusable = self.unusable.contains(&address);
            unusable.then(|| "no interface has it".to_owned())
        };
        let inputs = Inputs {
            trusts_proxies: false,
            previous,
            settings: &self.settings,
            environment: &environment,
            domain: self.domain.as_deref(),
            certificates: &self.certificates,
            tickets: &self.tickets,
            upstreams: &Upstreams::new([]),
            unusable_address: &unusable,
            unusable_bind: &|key| {
                self.taken.contains(&key.port).then(|| format!("port {} is taken", key.port))
            },
            pool: self.pool.as_ref(),
            held: &self.held,
            log_files: &LogFiles::unopened(),
            client_limits: &self.client_limits,
        };
        compile(objects, &inputs)
    }

    fn outcome(&self, loaded: &Loaded, status: impl Fn(&ObjectStatuses) -> String) -> String {
        let compiled = self.compile(&loaded.objects, &Snapshot::default());
        let mut text = String::from("# diagnostics\n");
        for diagnostic in loaded.diagnostics(compiled.faults) {
            writeln!(text, "{diagnostic}").unwrap();
        }
        write!(text, "\n# status\n{}", status(&compiled.statuses)).unwrap();
        write!(text, "\n# table\n{}", describe::snapshot(&compiled.snapshot)).unwrap();
        text.replace(&self.letsencrypt.path().display().to_string(), "/etc/letsencrypt")
    }
}

/// Formats statuses with one line per condition, and statuses without problems on one line. (YAML,
/// which the recordings of the deployment use, is too long for a review.)
fn in_short(statuses: &ObjectStatuses) -> String {
    let mut text = String::new();
    for class in &statuses.classes {
        writeln!(text, "{} generation {}", class.key, class.generation).unwrap();
        conditions(&mut text, "  ", &class.conditions);
    }
    for gateway in &statuses.gateways {
        let addresses = gateway.addresses.join(" ");
        writeln!(text, "{} generation {} [{addresses}]", gateway.key, gateway.generation).unwrap();
        if gateway.attached_listener_sets > 0 {
            writeln!(text, "  {} ListenerSets attached", gateway.attached_listener_sets).unwrap();
        }
        conditions(&mut text, "  ", &gateway.conditions);
        listeners(&mut text, &gateway.listeners);
    }
    for set in &statuses.listener_sets {
        writeln!(text, "{} generation {}", set.key, set.generation).unwrap();
        conditions(&mut text, "  ", &set.conditions);
        listeners(&mut text, &set.listeners);
    }
    for route in &statuses.routes {
        writeln!(text, "{} generation {}", route.key, route.generation).unwrap();
        for status in &route.parents {
            assert_eq!(&*status.controller, "gateway.envoyproxy.io/gatewayclass-controller");
            let parent = &status.parent;
            write!(text, "  parent {}", parent.name).unwrap();
            if parent.kind() != "Gateway" {
                write!(text, " kind {}", parent.kind()).unwrap();
            }
            if let Some(section) = &parent.section_name {
                write!(text, " section {section}").unwrap();
            }
            if let Some(port) = &parent.port {
                write!(text, " port {port}").unwrap();
            }
            text.push('\n');
            conditions(&mut text, "    ", &status.conditions);
        }
    }
    for policy in &statuses.policies {
        writeln!(text, "{} generation {}", policy.key, policy.generation).unwrap();
        for status in &policy.ancestors {
            write!(text, "  ancestor {}", status.ancestor).unwrap();
            if let Some(section) = &status.section {
                write!(text, " section {section}").unwrap();
            }
            text.push('\n');
            conditions(&mut text, "    ", &status.conditions);
        }
    }
    text
}

fn listeners(to: &mut String, all: &[ListenerStatus]) {
    for listener in all {
        let (routes, kinds) = (listener.attached_routes, listener.supported_kinds.join(" "));
        writeln!(to, "  listener {}: {routes} attached [{kinds}]", listener.name).unwrap();
        conditions(to, "    ", &listener.conditions);
    }
}

fn conditions(to: &mut String, indent: &str, all: &[Condition]) {
    let expected = ["Accepted", "Programmed", "ResolvedRefs"];
    let as_it_should_be = |condition: &&Condition| {
        let Condition { kind, status, reason, .. } = condition;
        *status == ConditionStatus::True && reason == kind && expected.contains(kind)
    };
    let good: Vec<_> = all.iter().filter(as_it_should_be).map(|of| of.kind).collect();
    if !good.is_empty() {
        writeln!(to, "{indent}{}", good.join(", ")).unwrap();
    }
    for Condition { kind, status, reason, message, .. } in
        all.iter().filter(|condition| !as_it_should_be(condition))
    {
        writeln!(to, "{indent}{kind}={status} {reason}: {message}").unwrap();
    }
}

fn check(situation: &Path, outcome: &str, wrong: &mut Vec<String>) {
    let recorded = situation.join("out.txt");
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(situation).unwrap();
        fs::write(&recorded, outcome).unwrap();
    } else if fs::read_to_string(&recorded).unwrap_or_default() != outcome {
        wrong.push(format!("{} is now:\n{outcome}", recorded.display()));
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn environment(name: &str) -> Option<String> {
    (name == "DOMAIN").then(|| "shop.example".into())
}

fn parsed(text: &str) -> Loaded {
    let mut text = text.to_owned();
    for (name, value) in [("TLS_CRT", &PAIR.0), ("TLS_KEY", &PAIR.1), ("OTHER_KEY", &OTHER.1)] {
        let value = serde_json::Value::from(value.as_str()).to_string();
        text = text.replace(&format!("\"${{{name}}}\""), &value);
    }
    parse_bytes(Path::new("in.yaml"), text.as_bytes(), &environment)
}

/// A certificate chain and its key, in PEM.
static PAIR: LazyLock<(String, String)> = LazyLock::new(pair);
static OTHER: LazyLock<(String, String)> = LazyLock::new(pair);

fn pair() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["shop.example".into()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(2090, 1, 1);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// Writes a lineage in certbot's layout.
fn lineage(letsencrypt: &Path, name: &str) {
    let (archive, live) =
        (letsencrypt.join("archive").join(name), letsencrypt.join("live").join(name));
    fs::create_dir_all(&archive).unwrap();
    fs::create_dir_all(&live).unwrap();
    for (file, text) in [("fullchain", &PAIR.0), ("privkey", &PAIR.1)] {
        fs::write(archive.join(format!("{file}1.pem")), text).unwrap();
        let target = format!("../../archive/{name}/{file}1.pem");
        symlink(target, live.join(format!("{file}.pem"))).unwrap();
    }
}
