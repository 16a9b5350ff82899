//! Served and missing certificates, for `edge-gateway certs`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::net::HostPattern;
use crate::observe::listed;
use crate::snapshot::{Bind, Listener, Snapshot};
use crate::tls::{CertFacts, CertSlot, Chain, JudgedCertificate};

/// The answer to `GET /certs`. Sorted by address and hostname of the listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Certificates {
    pub certificates: Vec<CertificateRow>,
}

/// A certificate, or a placeholder for a missing one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct CertificateRow {
    pub verdict: CertificateState,
    /// The listeners that use it.
    pub listeners: Vec<ShownOn>,
    /// `Secret namespace/name`; `None` if the listener references no usable object.
    pub secret: Option<String>,
    /// `None` if no certificate is loaded.
    pub certificate: Option<CertificateFacts>,
    /// Hostnames of the listener that no certificate covers; then `certificate` is `None`.
    pub hostnames: Vec<String>,
    /// Problems, with advice.
    pub problems: Vec<String>,
    /// Remarks that need not be problems: the issuer is unknown to this host.
    pub notes: Vec<String>,
}

/// A listener that uses the certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct ShownOn {
    /// `namespace/gateway/sectionName`.
    pub name: String,
    pub hostname: Option<String>,
    /// The port in the Gateway.
    pub port: u16,
}

/// The facts of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct CertificateFacts {
    pub names: Vec<String>,
    pub lineage: Option<String>,
    pub file: String,
    /// The distinguished name of the issuer.
    pub issuer: String,
    pub key_type: String,
    /// Lower-case hexadecimal.
    pub serial: String,
    /// RFC 3339, as `not_after`.
    pub not_before: String,
    pub not_after: String,
    /// Seconds until `not_after`; negative after it.
    pub seconds_left: i64,
}

/// The state of a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CertificateState {
    Good,
    /// Less than a quarter of its lifetime is left.
    Overdue,
    Expired,
    NotYetValid,
    /// A fault of its files; the served certificate is older.
    Broken,
    /// Clients cannot verify its chain.
    BrokenChain,
    /// No certificate is served.
    Missing,
    /// It covers no hostname of the listeners that use it.
    NotForHost,
    /// Hostnames without a certificate.
    Uncovered,
    /// A state that only a newer gateway knows.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Inspects every listener that terminates TLS.
pub(crate) fn certificates(snapshot: &Snapshot, now: SystemTime) -> Certificates {
    let mut listeners: Vec<(&Arc<Listener>, &Bind)> = Vec::new();
    for bind in &snapshot.binds {
        for (_, listener) in bind.listeners.sorted() {
            // A listener may have several addresses.
            let known = listeners.iter().any(|(known, _)| Arc::ptr_eq(known, listener));
            if listener.tls.is_some() && !known {
                listeners.push((listener, bind));
            }
        }
    }
    let mut certificates: Vec<CertificateRow> = Vec::new();
    // The rows of each slot that has been inspected.
    let mut seen: Vec<(&Arc<CertSlot>, std::ops::Range<usize>)> = Vec::new();
    // For the row of each certificate: true if at least one of its listeners can use it.
    let mut useful: BTreeMap<usize, bool> = BTreeMap::new();
    for (listener, bind) in listeners {
        let port = bind.key.port;
        let on = ShownOn {
            name: listener.name.to_string(),
            hostname: listener.hostname.as_ref().map(ToString::to_string),
            port,
        };
        if listener.certificates.is_empty() {
            certificates.push(without_reference(on));
            continue;
        }
        for slot in &listener.certificates {
            let known = seen.iter().find(|(known, _)| Arc::ptr_eq(known, slot));
            let rows = match known {
                Some((_, rows)) => rows.clone(),
                None => {
                    let from = certificates.len();
                    certificates.extend(rows(slot, now));
                    seen.push((slot, from..certificates.len()));
                    from..certificates.len()
                }
            };
            // Rows of certificates come first, then those of other faults.
            let mut facts = slot.facts().into_iter();
            for place in rows {
                certificates[place].listeners.push(on.clone());
                *useful.entry(place).or_default() |=
                    facts.next().is_none_or(|facts| is_of_use(&facts, listener));
            }
        }
        let uncovered = bind.uncovered(listener);
        if !uncovered.is_empty() {
            certificates.push(without_certificate(on, &uncovered));
        }
    }
    for (place, _) in useful.into_iter().filter(|(_, useful)| !useful) {
        tell_stranger(&mut certificates[place]);
    }
    Certificates { certificates }
}

/// The maximum number of hostnames in one problem.
const MOST: usize = 10;

/// Returns the row for hostnames of a listener that none of its certificates covers.
fn without_certificate(on: ShownOn, hosts: &[&HostPattern]) -> CertificateRow {
    let names = listed(hosts.iter().map(|host| format!("`{host}`")), MOST);
    let problem = format!(
        "no certificate of {} is for {names}: clients refuse the connection; `edge-gateway doctor` has \
         the command that gets one",
        on.name
    );
    CertificateRow {
        verdict: CertificateState::Uncovered,
        listeners: vec![on],
        hostnames: hosts.iter().map(ToString::to_string).collect(),
        problems: vec![problem],
        ..CertificateRow::default()
    }
}

/// False if the listener has hostnames and the certificate covers none of them. A listener for all
/// hosts can use any certificate.
fn is_of_use(facts: &CertFacts, listener: &Listener) -> bool {
    listener.hostname.is_none()
        || listener.hosts.is_empty()
        || listener.hosts.iter().any(|host| facts.is_for(host))
}

/// Marks a certificate that covers no hostname of its listeners.
fn tell_stranger(row: &mut CertificateRow) {
    let hosts = row.listeners.iter().filter_map(|on| on.hostname.as_ref());
    let hosts = listed(hosts.map(|host| format!("`{host}`")), MOST);
    row.problems.push(format!("is not for {hosts}: clients refuse it there"));
    if matches!(row.verdict, CertificateState::Good | CertificateState::Overdue) {
        row.verdict = CertificateState::NotForHost;
    }
}

fn without_reference(on: ShownOn) -> CertificateRow {
    let problem = "none of its certificateRefs can be used; `edge-gateway check` says why";
    CertificateRow {
        verdict: CertificateState::Missing,
        listeners: vec![on],
        problems: vec![problem.into()],
        ..CertificateRow::default()
    }
}

/// Returns the rows of one certificate reference: one per certificate, as there may be several key
/// types; at least one row.
fn rows(slot: &CertSlot, now: SystemTime) -> Vec<CertificateRow> {
    let mut faults = slot.faults();
    let mut rows = Vec::new();
    for judged in slot.judged() {
        let facts = &judged.facts;
        // Faults in the folder of another lineage do not concern this certificate.
        let folder = Path::new(&facts.file).parent();
        let own = |file: &str| match folder {
            Some(folder) if facts.lineage.is_some() => Path::new(file).starts_with(folder),
            _ => true,
        };
        let (of_this, others) = faults.into_iter().partition(|(file, _)| own(file));
        faults = others;
        rows.push(row(slot, &judged, of_this, now));
    }
    if !faults.is_empty() || rows.is_empty() {
        rows.push(CertificateRow {
            verdict: if rows.is_empty() {
                CertificateState::Missing
            } else {
                CertificateState::Broken
            },
            secret: Some(slot.object().to_owned()),
            problems: faults.into_iter().map(|(_, fault)| fault).collect(),
            ..CertificateRow::default()
        });
    }
    rows
}

fn row(
    slot: &CertSlot,
    judged: &JudgedCertificate,
    faults: Vec<(String, String)>,
    now: SystemTime,
) -> CertificateRow {
    let JudgedCertificate { facts, chain } = judged;
    let verdict = judge(facts, chain, faults.len(), now);
    let mut problems: Vec<_> = faults.into_iter().map(|(_, fault)| fault).collect();
    if verdict == CertificateState::Overdue {
        problems.push(
            "its renewal is overdue: less than a quarter of its lifetime is left; see what \
             `certbot renew` says, and `systemctl status certbot.timer`"
                .into(),
        );
    }
    CertificateRow {
        verdict,
        secret: Some(slot.object().to_owned()),
        certificate: Some(CertificateFacts::new(facts, now)),
        problems,
        notes: match chain {
            Chain::Unknown(note) => vec![note.clone()],
            Chain::Trusted | Chain::Broken(_) => Vec::new(),
        },
        ..CertificateRow::default()
    }
}

/// Returns the worst state: first faults that clients notice now, then those that they will notice.
/// A broken chain is also one of the `faults`.
fn judge(facts: &CertFacts, chain: &Chain, faults: usize, now: SystemTime) -> CertificateState {
    let broken_chain = matches!(chain, Chain::Broken(_));
    if facts.not_after <= now {
        CertificateState::Expired
    } else if now < facts.not_before {
        CertificateState::NotYetValid
    } else if broken_chain {
        CertificateState::BrokenChain
    } else if faults > 0 {
        CertificateState::Broken
    } else if facts.is_renewal_overdue(now) {
        CertificateState::Overdue
    } else {
        CertificateState::Good
    }
}

impl CertificateFacts {
    fn new(facts: &CertFacts, now: SystemTime) -> Self {
        let CertFacts { file, lineage, names, issuer, serial, key_type, not_before, not_after } =
            facts;
        let left = match not_after.duration_since(now) {
            Ok(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            Err(past) => i64::try_from(past.duration().as_secs()).map_or(i64::MIN, |past| -past),
        };
        Self {
            names: names.clone(),
            lineage: lineage.clone(),
            file: file.clone(),
            issuer: issuer.clone(),
            key_type: key_type.to_string(),
            serial: serial.clone(),
            not_before: stamp(*not_before),
            not_after: stamp(*not_after),
            seconds_left: left,
        }
    }
}

impl Certificates {
    /// True if every certificate is good, so no action is needed.
    pub(crate) fn is_good(&self) -> bool {
        self.certificates.iter().all(|row| row.verdict == CertificateState::Good)
    }
}

/// Formats a time as RFC 3339 in UTC, to the second.
fn stamp(moment: SystemTime) -> String {
    let stamp =
        Timestamp::try_from(moment).and_then(|stamp| Timestamp::from_second(stamp.as_second()));
    stamp.map_or_else(|_| String::new(), |stamp| stamp.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tls::KeyType;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(days: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + days * DAY
    }

    /// A certificate that is valid from day 1000 to day 1090.
    fn facts() -> CertFacts {
        CertFacts {
            file: "/live/a/fullchain.pem".into(),
            lineage: Some("a".into()),
            names: vec!["a.test".into()],
            issuer: "CN=Test".into(),
            serial: "ab".into(),
            key_type: KeyType::Ecdsa,
            not_before: at(1000),
            not_after: at(1090),
        }
    }

    #[test]
    fn the_worst_is_what_is_said() {
        let (trusted, broken) = (Chain::Trusted, Chain::Broken("why".into()));
        let unknown = Chain::Unknown("why".into());
        // (day, chain, number of faults, verdict)
        let table = [
            (999, &trusted, 0, CertificateState::NotYetValid),
            (1000, &trusted, 0, CertificateState::Good),
            (1000, &unknown, 0, CertificateState::Good),
            (1000, &broken, 1, CertificateState::BrokenChain),
            (1067, &trusted, 0, CertificateState::Good),
            (1068, &trusted, 0, CertificateState::Overdue),
            (1068, &broken, 1, CertificateState::BrokenChain),
            (1068, &trusted, 1, CertificateState::Broken),
            (1001, &trusted, 1, CertificateState::Broken),
            (1089, &trusted, 0, CertificateState::Overdue),
            (1090, &trusted, 0, CertificateState::Expired),
            (1090, &broken, 1, CertificateState::Expired),
            (2000, &trusted, 0, CertificateState::Expired),
        ];
        for (day, chain, faults, want) in table {
            assert_eq!(judge(&facts(), chain, faults, at(day)), want, "day {day}, {chain:?}");
        }
    }

    #[test]
    fn what_is_left_may_be_less_than_none() {
        let left = |day| CertificateFacts::new(&facts(), at(day)).seconds_left;
        assert_eq!((left(1089), left(1090), left(1092)), (86_400, 0, -172_800));
        let facts = CertificateFacts::new(&facts(), at(1000));
        assert_eq!(facts.not_before, "1972-09-27T00:00:00Z");
        assert_eq!(facts.not_after, "1972-12-26T00:00:00Z");
    }

    #[test]
    fn a_word_of_tomorrow_is_no_error_today() {
        let row: CertificateRow =
            serde_json::from_str(r#"{"verdict": "revoked", "color": "red"}"#).unwrap();
        assert_eq!(row.verdict, CertificateState::Unknown);
        assert!(!Certificates { certificates: vec![row] }.is_good());
    }
}
