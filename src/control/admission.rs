//! Admission: the rules by which a load may replace the served configuration.
//!
//! Saving a file does not imply a decision to stop serving something. So a load from files is
//! refused as a whole if it has a fault that the served configuration does not have, or if
//! something that is served would disappear; see ADR 0005. Changes over the API are not judged
//! here: validation refuses what is invalid, as an API server does, and everything else becomes
//! conditions.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::api::{Kind, ObjectKey};
use crate::config::{Diagnostic, Origin, Severity};
use crate::control::loader::{Accepted, Load};
use crate::observe::counted;
use crate::provider::SourceFile;
use crate::snapshot::{Bind, BindKey, Listener, Snapshot};

/// `--reload-policy`: the faults with which a load from files is still served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReloadPolicy {
    /// Any fault that closes no listener: its object is out of service, everything else is served.
    Partial,
    /// No faults beyond those of the served configuration.
    #[default]
    Strict,
}

impl FromStr for ReloadPolicy {
    type Err = InvalidPolicy;

    fn from_str(text: &str) -> Result<Self, InvalidPolicy> {
        match text {
            "partial" => Ok(Self::Partial),
            "strict" => Ok(Self::Strict),
            _ => Err(InvalidPolicy(text.to_owned())),
        }
    }
}

impl fmt::Display for ReloadPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Partial => "partial",
            Self::Strict => "strict",
        })
    }
}

/// The error for an unknown policy.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a policy; use strict or partial")]
pub(crate) struct InvalidPolicy(String);

/// The rules that a load is judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdmissionRules {
    pub policy: ReloadPolicy,
    /// True if the operator has said that objects were removed on purpose.
    pub allow_removal: bool,
}

/// Reasons why a load may not replace the served configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoadRefusal {
    /// Files and objects that are missing.
    pub absences: Vec<String>,
    /// The most basic new faults: those that no other fault explains, in order of importance.
    pub causes: Vec<Diagnostic>,
    /// The number of new faults that follow from the causes.
    pub consequences: usize,
    /// Listeners, ports and routes that would no longer be served.
    pub losses: Vec<String>,
}

/// The served configuration, and the files that it was made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunningConfiguration<'r> {
    pub snapshot: &'r Snapshot,
    pub accepted: &'r Accepted,
    /// Names of the sockets that the service manager has handed over. A listener of that name uses
    /// that socket, whatever port the files give it.
    pub handed_over: &'r [String],
}

/// Judges whether `load` may replace `running`, if there is one, and returns the number of new
/// faults.
///
/// # Errors
///
/// Returns the reasons for a refusal.
pub(super) fn judge(
    load: &Load,
    running: Option<RunningConfiguration<'_>>,
    rules: AdmissionRules,
) -> Result<usize, LoadRefusal> {
    let Some(compiled) = &load.compiled else { return Err(fatal(load, running)) };
    let Some(running) = running else { return Ok(0) };
    let next = Next { load, snapshot: &compiled.snapshot, objects: load.places() };
    let new = new_faults(load, running.accepted);
    let (mut absences, mut losses) = (Vec::new(), Vec::new());
    if !rules.allow_removal {
        absences = next.absences(running);
        losses = next.losses(running, rules.policy, &new);
    }
    let excused = |fault: &&Diagnostic| match &fault.origin {
        // It follows from an intended removal.
        Origin::Referent(key) => rules.allow_removal && next.is_gone(key, running),
        Origin::Host | Origin::Written => false,
    };
    let new: Vec<&Diagnostic> = new.into_iter().filter(|fault| !excused(fault)).collect();
    let refuses = rules.policy == ReloadPolicy::Strict && !new.is_empty();
    if !refuses && absences.is_empty() && losses.is_empty() {
        return Ok(new.len());
    }
    let (causes, consequences) = apart(&new, |key| next.is_gone(key, running));
    if causes.is_empty() && absences.is_empty() && !losses.is_empty() {
        absences.extend(not_ours(load, running.accepted));
    }
    let told: BTreeSet<ObjectKey> = absences.iter().flat_map(|one| one.names.clone()).collect();
    let referents = next.gone_referents(running, &consequences);
    absences.extend(referents.into_iter().filter(|one| told.is_disjoint(&one.names)));
    Err(LoadRefusal {
        absences: absences.into_iter().map(|one| one.text).collect(),
        consequences: consequences.len(),
        causes: causes.into_iter().cloned().collect(),
        losses,
    })
}

/// Returns the refusal of a load with a document that does not decode: none of it can be served.
fn fatal(load: &Load, running: Option<RunningConfiguration<'_>>) -> LoadRefusal {
    let mut causes: Vec<Diagnostic> =
        load.diagnostics.iter().filter(|one| one.fatal).cloned().collect();
    causes.sort_by_key(rank);
    let new = match running {
        Some(running) => new_faults(load, running.accepted),
        None => load.diagnostics.iter().filter(|one| one.severity == Severity::Error).collect(),
    };
    let consequences = new.iter().filter(|one| !one.fatal).count();
    LoadRefusal { causes, consequences, ..LoadRefusal::default() }
}

/// The faults, fatal or not, that the served configuration did not have when it was accepted.
/// Faults of the host do not count: the files did not cause them.
fn new_faults<'l>(load: &'l Load, accepted: &Accepted) -> Vec<&'l Diagnostic> {
    let is_fault =
        |one: &&Diagnostic| one.severity == Severity::Error && one.origin != Origin::Host;
    let known = accepted.diagnostics.iter().filter(is_fault);
    let now = load.diagnostics.iter().filter(is_fault);
    // A problem may name other objects, which have changed; then the same field identifies the
    // fault.
    let (now, known) = beyond(now, known, FaultIdentity::of);
    beyond(now, known, |fault| (fault.object.clone(), fault.field.clone())).0
}

/// The rest of both lists after each pair with the same key is removed.
fn beyond<'n, 'k, K: Eq + Hash>(
    now: impl IntoIterator<Item = &'n Diagnostic>,
    known: impl IntoIterator<Item = &'k Diagnostic>,
    key: impl Fn(&Diagnostic) -> K,
) -> (Vec<&'n Diagnostic>, Vec<&'k Diagnostic>) {
    let mut left: HashMap<K, Vec<&Diagnostic>> = HashMap::new();
    for one in known {
        left.entry(key(one)).or_default().push(one);
    }
    let is_left = |one: &&Diagnostic| left.get_mut(&key(one)).and_then(Vec::pop).is_none();
    let new = now.into_iter().filter(is_left).collect();
    (new, left.into_values().flatten().collect())
}

/// Gateways that no longer belong to our class. These are warnings, not faults, since another
/// controller may serve them.
fn not_ours(load: &Load, accepted: &Accepted) -> Vec<Absence> {
    let is_known = |one: &Diagnostic| {
        accepted.diagnostics.iter().any(|known| FaultIdentity::of(known) == FaultIdentity::of(one))
    };
    let new = load.diagnostics.iter().filter(|one| {
        one.severity == Severity::Warning && one.field == "spec.gatewayClassName" && !is_known(one)
    });
    new.map(|one| Absence { names: BTreeSet::new(), text: one.to_string() }).collect()
}

/// The identity of a fault across loads. It has no line and no rule number, because those change
/// when something is inserted above. It has no file name either, because files may be renamed.
#[derive(PartialEq, Eq, Hash)]
struct FaultIdentity {
    /// The object, or the file if the object is unknown.
    of: String,
    field: String,
    problem: String,
}

impl FaultIdentity {
    fn of(fault: &Diagnostic) -> Self {
        let of = match &*fault.object {
            "" => fault.place.file.display().to_string(),
            object => object.to_owned(),
        };
        let [field, problem] = [&fault.field, &fault.problem].map(|text| without_places(text));
        Self { of, field, problem }
    }
}

/// Removes the number from `spec.rules[3]`, and line and column from `a.yaml:3:7`.
fn without_places(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut in_place = false;
    for character in text.chars() {
        in_place = match character {
            '[' | ':' => true,
            '0'..='9' => in_place,
            _ => false,
        };
        if !(in_place && character.is_ascii_digit()) {
            kept.push(character);
        }
    }
    kept
}

/// Separates causes from consequences: a consequence follows from another fault, or from an object
/// for which `is_gone` is true. Causes are sorted, the most basic first.
fn apart<'d>(
    new: &[&'d Diagnostic],
    is_gone: impl Fn(&ObjectKey) -> bool,
) -> (Vec<&'d Diagnostic>, Vec<&'d Diagnostic>) {
    let at_fault: HashSet<&str> = new
        .iter()
        .filter(|one| !matches!(one.origin, Origin::Referent(_)))
        .map(|one| &*one.object)
        .collect();
    let mut fields: HashMap<&str, Vec<&str>> = HashMap::new();
    for one in new {
        fields.entry(&one.object).or_default().push(&one.field);
    }
    let follows = |one: &Diagnostic| {
        let of_referent = match &one.origin {
            Origin::Referent(key) => is_gone(key) || at_fault.contains(&*key.to_string()),
            Origin::Host | Origin::Written => false,
        };
        // A validation rule for a whole field fails because a part of the field is faulty.
        let others = fields.get(&*one.object).into_iter().flatten();
        of_referent || !one.fatal && others.into_iter().any(|other| is_part(other, &one.field))
    };
    let (consequences, mut causes): (Vec<_>, Vec<_>) =
        new.iter().copied().partition(|one| follows(one));
    causes.sort_by_key(|one| rank(one));
    (causes, consequences)
}

/// True if field `part` is inside field `of`, as `spec.rules[0].filters[0]` is in `spec.rules[0]`.
fn is_part(part: &str, of: &str) -> bool {
    let rest = part.strip_prefix(of).unwrap_or_default();
    rest.starts_with(['.', '[']) || (of.is_empty() && !rest.is_empty())
}

/// The order in which faults are reported: unreadable documents first, then objects that others
/// depend on.
fn rank(fault: &Diagnostic) -> (bool, u8, bool) {
    let kind = fault.object.split(' ').next().unwrap_or_default();
    let rank = match kind {
        "" | "EnvoyGateway" => 0,
        "GatewayClass" => 1,
        "EnvoyProxy" => 2,
        "Gateway" => 3,
        "ListenerSet" => 4,
        "HTTPRoute" | "GRPCRoute" | "TLSRoute" | "TCPRoute" | "UDPRoute" => 6,
        _ => 5,
    };
    (!fault.fatal, rank, matches!(fault.origin, Origin::Referent(_)))
}

/// A file, directory or object that is missing.
struct Absence {
    /// The objects that it contained.
    names: BTreeSet<ObjectKey>,
    text: String,
}

/// A load that can be served.
struct Next<'n> {
    load: &'n Load,
    snapshot: &'n Snapshot,
    objects: HashMap<ObjectKey, Arc<Path>>,
}

impl Next<'_> {
    /// True if an object has been removed. A key without a name matches any object of that kind and
    /// namespace.
    fn is_gone(&self, key: &ObjectKey, running: RunningConfiguration<'_>) -> bool {
        let was = &running.accepted.objects;
        if key.name.is_empty() {
            let of_namespace =
                |one: &&ObjectKey| (one.kind, &one.namespace) == (key.kind, &key.namespace);
            return was.keys().filter(of_namespace).any(|one| !self.objects.contains_key(one));
        }
        was.contains_key(key) && !self.objects.contains_key(key)
    }

    /// Files that have become empty, and directories that are empty or missing. The removal of a
    /// single file or document does not count: it is regarded as deliberate.
    fn absences(&self, running: RunningConfiguration<'_>) -> Vec<Absence> {
        let Accepted { settings, objects, missing, .. } = running.accepted;
        let mut gone: BTreeMap<&Path, BTreeSet<ObjectKey>> = BTreeMap::new();
        for (key, file) in objects {
            if !self.objects.contains_key(key) {
                gone.entry(file).or_default().insert(key.clone());
            }
        }
        let mut absences = Vec::new();
        let mut told = |path: &Path, how: &str, names: BTreeSet<ObjectKey>| {
            let text = format!("{} {how}; {}", path.display(), were_in_it(&names));
            absences.push(Absence { names, text });
        };
        let is_of = |file: &Path, path: &Path| file == path || file.parent() == Some(path);
        for path in settings.paths.iter().filter(|path| self.load.paths().contains(path)) {
            let of_path = || {
                let files = gone.iter().filter(|(file, _)| is_of(file, path));
                files.flat_map(|(_, names)| names.clone()).collect::<BTreeSet<_>>()
            };
            let files = gone.keys().filter(|file| is_of(file, path)).count();
            let is_left = || self.load.source_files().iter().any(|file| file.is_of(path));
            if !path.exists() && !missing.contains(path) {
                told(path, "is not there any more", of_path());
            } else if files > 1 && !is_left() {
                told(path, "holds no file any more", of_path());
            }
        }
        for path in self.load.missing() {
            if !missing.contains(path) && !settings.paths.contains(path) {
                let text = format!(
                    "{} is not there; make it, or take it out of \
                     `provider.custom.resource.file.paths`",
                    path.display()
                );
                absences.push(Absence { names: BTreeSet::new(), text });
            }
        }
        let holding: HashSet<&Path> = self.objects.values().map(|file| &**file).collect();
        for file in self.load.source_files().iter().map(|file: &SourceFile| &*file.path) {
            if let Some(names) = gone.get(file)
                && !holding.contains(file)
            {
                let text =
                    format!("{} holds no object any more; {}", file.display(), were_in_it(names));
                absences.push(Absence { names: names.clone(), text });
            }
        }
        absences
    }

    /// Removed objects that other objects still refer to.
    fn gone_referents(
        &self,
        running: RunningConfiguration<'_>,
        faults: &[&Diagnostic],
    ) -> Vec<Absence> {
        let referents: BTreeSet<&ObjectKey> = faults
            .iter()
            .filter_map(|fault| match &fault.origin {
                Origin::Referent(key) => Some(key),
                Origin::Host | Origin::Written => None,
            })
            .filter(|key| self.is_gone(key, running))
            .collect();
        let absence = |key: &ObjectKey| {
            let file = running.accepted.objects.get(key)?;
            let text = format!("{key} is gone; it was in {}", file.display());
            Some(Absence { names: BTreeSet::from([key.clone()]), text })
        };
        referents.into_iter().filter_map(absence).collect()
    }

    /// Returns the bind that takes over the socket of a served one: it has the same address, or the
    /// same name if the service manager has handed the socket over.
    fn successor(&self, key: BindKey, running: RunningConfiguration<'_>) -> BindKey {
        let is_there = self.snapshot.bind(key).is_some();
        let Some(before) = running.snapshot.bind(key).filter(|_| !is_there) else { return key };
        let names = before.names.iter();
        let names: Vec<_> =
            names.filter(|name| running.handed_over.iter().any(|one| **one == ***name)).collect();
        let takes_over = |bind: &&Arc<Bind>| {
            let same_kind = bind.key.transport == key.transport && bind.tls == before.tls;
            same_kind && bind.names.iter().any(|name| names.contains(&name))
        };
        self.snapshot.binds.iter().find(takes_over).map_or(key, |bind| bind.key)
    }

    /// Listeners, ports and routes that are served now and no longer would be.
    fn losses(
        &self,
        running: RunningConfiguration<'_>,
        policy: ReloadPolicy,
        new: &[&Diagnostic],
    ) -> Vec<String> {
        let mut losses = Vec::new();
        let mut ports = BTreeSet::new();
        let mut emptied = Vec::new();
        for (key, listener) in running.snapshot.listeners() {
            let Listener { name, hostname, .. } = &**listener;
            let port = key.port;
            let next_key = self.successor(key, running);
            let Some(next) = self.snapshot.covering(next_key, hostname.as_ref()) else {
                let is_open = self.snapshot.bind(next_key).is_some();
                let of = hostname.as_ref().map_or_else(String::new, |host| format!(" ({host})"));
                if is_open {
                    losses.push(format!("listener {name}{of} would be gone from port {port}"));
                } else if ports.insert(key) {
                    losses.push(format!("port {port} would be closed, of listener {name}"));
                }
                continue;
            };
            if next.refuses_handshakes() && !listener.refuses_handshakes() {
                losses.push(format!(
                    "listener {name} would have no certificate: every handshake would be refused"
                ));
            }
            let routes = listener.route_names();
            let is_lost = !routes.is_empty() && next.route_names().is_empty();
            // The policy allows faulty routes to be out of service.
            if is_lost
                && (policy == ReloadPolicy::Strict || routes.iter().any(|one| !self.has(one)))
            {
                emptied.push(format!(
                    "listener {name} would have no route left; it has {}",
                    counted(routes.len(), "route")
                ));
            }
        }
        let is_whole = losses.is_empty();
        losses.append(&mut emptied);
        if policy == ReloadPolicy::Strict && is_whole {
            losses.extend(self.detached(running, new));
        }
        losses
    }

    /// Routes without a fault that would no longer be attached to any listener.
    fn detached(&self, running: RunningConfiguration<'_>, new: &[&Diagnostic]) -> Vec<String> {
        let on = |snapshot: &Snapshot| -> HashSet<String> {
            let names = snapshot.listeners().flat_map(|(_, listener)| {
                listener.route_names().into_iter().map(str::to_owned).collect::<Vec<_>>()
            });
            names.collect()
        };
        let (before, after) = (on(running.snapshot), on(self.snapshot));
        let at_fault: HashSet<&str> = new.iter().map(|fault| &*fault.object).collect();
        let mut detached: Vec<String> = self
            .objects
            .keys()
            .filter(|key| {
                let name = rule_name(key);
                before.contains(&name) && !after.contains(&name)
            })
            .map(ToString::to_string)
            .filter(|object| !at_fault.contains(&**object))
            .map(|object| format!("{object} would be on no listener any more"))
            .collect();
        detached.sort();
        detached
    }

    /// True if the files contain this route, faulty or not.
    fn has(&self, route: &str) -> bool {
        self.objects.keys().any(|key| rule_name(key) == route)
    }
}

/// The name of a route as in [`Listener::route_names`]; empty for other kinds.
fn rule_name(key: &ObjectKey) -> String {
    let ObjectKey { kind, namespace, name } = key;
    match kind {
        Kind::HttpRoute => format!("httproute/{namespace}/{name}"),
        Kind::GrpcRoute => format!("grpcroute/{namespace}/{name}"),
        Kind::TlsRoute => format!("tlsroute/{namespace}/{name}"),
        Kind::TcpRoute => format!("tcproute/{namespace}/{name}"),
        Kind::UdpRoute => format!("udproute/{namespace}/{name}"),
        _ => String::new(),
    }
}

/// Returns a phrase such as `GatewayClass eg was in it`.
fn were_in_it(names: &BTreeSet<ObjectKey>) -> String {
    match (names.len(), names.first()) {
        (_, None) => "nothing was in it".into(),
        (1, Some(only)) => format!("{only} was in it"),
        (count, Some(first)) => format!("{count} objects were in it, {first} among them"),
    }
}

/// The maximum number of causes, absences and losses that are listed one by one.
const MOST: usize = 10;

impl LoadRefusal {
    /// Returns one line for each absence, cause and loss, and one for the number of consequences.
    pub(crate) fn lines(&self) -> Vec<String> {
        let causes: Vec<String> = self.causes.iter().map(ToString::to_string).collect();
        let more = |count: usize, what: &str| {
            (count > 0).then(|| format!("and {count} more {what}; `edge-gateway check` lists them"))
        };
        let faults = |count: usize| if count == 1 { "fault" } else { "faults" };
        let follow = match self.consequences {
            0 => None,
            1 => Some("1 fault follows from that".into()),
            count => Some(format!("{count} faults follow from that")),
        };
        let (untold, lost) =
            (causes.len().saturating_sub(MOST), self.losses.len().saturating_sub(MOST));
        self.absences
            .iter()
            .take(MOST)
            .cloned()
            .chain(causes.into_iter().take(MOST))
            .chain(more(untold, faults(untold)))
            .chain(follow)
            .chain(self.losses.iter().take(MOST).cloned())
            .chain((lost > 0).then(|| format!("and {lost} more losses")))
            .collect()
    }

    /// True if the operator can confirm the load: objects were removed, and there is no new fault.
    pub(crate) fn is_removal(&self) -> bool {
        self.causes.is_empty() && !(self.absences.is_empty() && self.losses.is_empty())
    }
}

/// Formats the first line, and the number of further ones.
impl fmt::Display for LoadRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        f.write_str(lines.first().map_or("the configuration has faults", String::as_str))?;
        let more = self.absences.len() + self.causes.len() + self.consequences + self.losses.len();
        match more.saturating_sub(1) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Place;

    use super::*;

    fn fault(object: &str, field: &str, problem: &str, origin: Origin) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            fatal: problem.starts_with("fatal"),
            place: Place { file: Path::new("a.yaml").into(), position: None },
            object: object.into(),
            field: field.into(),
            problem: problem.into(),
            origin,
        }
    }

    fn written(object: &str, field: &str, problem: &str) -> Diagnostic {
        fault(object, field, problem, Origin::Written)
    }

    #[test]
    fn a_known_fault_is_known_wherever_it_stands() {
        let route = "HTTPRoute a/b";
        let known = [
            written(route, "spec.rules[3].matches[0]", "no `/`"),
            written(route, "spec.parentRefs[0].sectionName", "it has `a` on port 80"),
            written(route, "metadata.name", "the same stands at a.yaml:3:7; remove one"),
        ];
        // (fault of the load, is new)
        let table = [
            (written(route, "spec.rules[4].matches[0]", "no `/`"), false),
            (written(route, "spec.rules[4].matches[0]", "no `.`"), true),
            (written(route, "spec.parentRefs[0].sectionName", "it has `a` and `b`"), false),
            (written(route, "metadata.name", "the same stands at a.yaml:30:70; remove one"), false),
            (written("HTTPRoute a/c", "spec.rules[3].matches[0]", "no `/`"), true),
        ];
        for (now, is_new) in table {
            let (left, known) = beyond([&now], &known, FaultIdentity::of);
            let (left, _) = beyond(left, known, |one| (one.object.clone(), one.field.clone()));
            assert_eq!(!left.is_empty(), is_new, "{now}");
        }
        // If a known fault occurs twice, one of the two is new.
        let now = [&known[0], &known[0]];
        let (left, known) = beyond(now, &known, FaultIdentity::of);
        let (left, _) = beyond(left, known, |one| (one.object.clone(), one.field.clone()));
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn the_cause_comes_first_and_what_follows_is_counted() {
        let backend = ObjectKey::new(Kind::Backend, "a", "shop");
        let class = ObjectKey::new(Kind::GatewayClass, "", "eg");
        let of = |key: &ObjectKey| Origin::Referent(key.clone());
        let all = [
            fault("HTTPRoute a/1", "spec.rules[0].backendRefs[0]", "is not valid", of(&backend)),
            written("HTTPRoute a/2", "spec.rules[0]", "a rule of the whole"),
            written("HTTPRoute a/2", "spec.rules[0].filters[0].type", "a typo"),
            written("Backend a/shop", "spec.endpoints[0]", "no address"),
            fault("Gateway a/eg", "spec.gatewayClassName", "there is none", of(&class)),
            written("HTTPRoute a/3", "spec.rules", "fatal"),
        ];
        let all: Vec<&Diagnostic> = all.iter().collect();
        let shown = |of: &[&Diagnostic]| -> Vec<String> {
            of.iter().map(|one| format!("{} {}", one.object, one.field)).collect()
        };
        let (causes, consequences) = apart(&all, |_| false);
        let want = [
            "HTTPRoute a/3 spec.rules",
            "Gateway a/eg spec.gatewayClassName",
            "Backend a/shop spec.endpoints[0]",
            "HTTPRoute a/2 spec.rules[0].filters[0].type",
        ];
        assert_eq!(shown(&causes), want);
        let want = ["HTTPRoute a/1 spec.rules[0].backendRefs[0]", "HTTPRoute a/2 spec.rules[0]"];
        assert_eq!(shown(&consequences), want);
        let (causes, consequences) = apart(&all, |key| *key == class);
        assert_eq!((causes.len(), consequences.len()), (3, 3));
    }

    #[test]
    fn a_long_refusal_is_told_in_a_few_lines() {
        let refusal = LoadRefusal {
            absences: vec!["a.yaml holds no object any more".into()],
            causes: (0..12).map(|one| written("HTTPRoute a/b", &one.to_string(), "x")).collect(),
            consequences: 3,
            losses: vec!["port 80 would be closed".into()],
        };
        let lines = refusal.lines();
        assert_eq!(lines.len(), 1 + MOST + 1 + 1 + 1, "{lines:?}");
        assert_eq!(lines[11], "and 2 more faults; `edge-gateway check` lists them");
        assert_eq!(lines[12], "3 faults follow from that");
        assert_eq!(refusal.to_string(), "a.yaml holds no object any more; and 16 more");
        assert!(!refusal.is_removal(), "a fault is nothing to be meant");
        let removal = LoadRefusal { losses: refusal.losses, ..LoadRefusal::default() };
        assert!(removal.is_removal());
        assert_eq!(removal.to_string(), "port 80 would be closed");
    }
}
