//! Every certificate that is served or should be, as `edge-gateway certs` shows it.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::snapshot::{Listener, Snapshot};
use crate::tls::{CertFacts, CertSlot};

/// The answer to `GET /certs`. By listener, in the order of their addresses and hostnames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Certificates {
    pub certificates: Vec<Row>,
}

/// A certificate, or the place of one that is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Row {
    pub verdict: Verdict,
    /// The listeners that show it.
    pub listeners: Vec<On>,
    /// `Secret namespace/name`; none if the listener refers to nothing that could be one.
    pub secret: Option<String>,
    /// None if there is nothing to show.
    pub certificate: Option<Facts>,
    /// What is wrong, and what would be right.
    pub problems: Vec<String>,
}

/// A listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct On {
    /// `namespace/gateway/sectionName`.
    pub name: String,
    pub hostname: Option<String>,
    /// The port as the Gateway has it.
    pub port: u16,
}

/// What is known of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Facts {
    pub names: Vec<String>,
    pub lineage: Option<String>,
    pub file: String,
    /// Distinguished name.
    pub issuer: String,
    pub key_type: String,
    /// Lower-case hexadecimal.
    pub serial: String,
    /// RFC 3339, as the end.
    pub not_before: String,
    pub not_after: String,
    /// Until the end; less than none after it.
    pub seconds_left: i64,
}

/// How a certificate is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Good,
    /// Less than a quarter of its lifetime is left.
    Overdue,
    Expired,
    NotYetValid,
    /// Something is wrong with its files; what is served is older.
    Broken,
    /// Nothing is served.
    Missing,
    /// The word of a gateway that knows more of them.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Looks at every listener that ends TLS.
pub(crate) fn certificates(snapshot: &Snapshot, now: SystemTime) -> Certificates {
    let mut listeners: Vec<(&Arc<Listener>, u16)> = Vec::new();
    for bind in &snapshot.binds {
        for (_, listener) in bind.listeners.sorted() {
            // One listener may be on several addresses.
            let known = listeners.iter().any(|(known, _)| Arc::ptr_eq(known, listener));
            if listener.tls.is_some() && !known {
                listeners.push((listener, bind.key.port));
            }
        }
    }
    let mut certificates: Vec<Row> = Vec::new();
    // Which rows are those of a slot that has been looked at.
    let mut seen: Vec<(&Arc<CertSlot>, std::ops::Range<usize>)> = Vec::new();
    for (listener, port) in listeners {
        let on = On {
            name: listener.name.to_string(),
            hostname: listener.hostname.as_ref().map(ToString::to_string),
            port,
        };
        if listener.certificates.is_empty() {
            certificates.push(without_reference(on));
            continue;
        }
        let stranger = stranger(listener, &on);
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
            for row in &mut certificates[rows] {
                row.listeners.push(on.clone());
                row.problems.extend(stranger.clone());
            }
        }
    }
    Certificates { certificates }
}

fn without_reference(on: On) -> Row {
    let problem = "none of its certificateRefs can be used; `edge-gateway check` says why";
    Row {
        verdict: Verdict::Missing,
        listeners: vec![on],
        problems: vec![problem.into()],
        ..Row::default()
    }
}

/// What is wrong where a listener has certificates, and none is for its hostname.
fn stranger(listener: &Listener, on: &On) -> Option<String> {
    let host = on.hostname.as_ref()?;
    let facts: Vec<_> = listener.certificates.iter().flat_map(|slot| slot.facts()).collect();
    let covered = facts.is_empty() || facts.iter().any(|facts| facts.covers(host));
    (!covered)
        .then(|| format!("is not for `{host}`, the hostname of {}: clients will warn", on.name))
}

/// The certificates of one reference: of several key types, perhaps; one row at least.
fn rows(slot: &CertSlot, now: SystemTime) -> Vec<Row> {
    let mut faults = slot.faults();
    let mut rows = Vec::new();
    for facts in slot.facts() {
        // Of the lineage's own folder: a fault of another one is no fault of this certificate.
        let folder = Path::new(&facts.file).parent();
        let own = |file: &str| match folder {
            Some(folder) if facts.lineage.is_some() => Path::new(file).starts_with(folder),
            _ => true,
        };
        let (of_this, others) = faults.into_iter().partition(|(file, _)| own(file));
        faults = others;
        rows.push(row(slot, &facts, of_this, now));
    }
    if !faults.is_empty() || rows.is_empty() {
        rows.push(Row {
            verdict: if rows.is_empty() { Verdict::Missing } else { Verdict::Broken },
            secret: Some(slot.object().to_owned()),
            problems: faults.into_iter().map(|(_, fault)| fault).collect(),
            ..Row::default()
        });
    }
    rows
}

fn row(slot: &CertSlot, facts: &CertFacts, faults: Vec<(String, String)>, now: SystemTime) -> Row {
    let verdict = judge(facts, !faults.is_empty(), now);
    let mut problems: Vec<_> = faults.into_iter().map(|(_, fault)| fault).collect();
    if verdict == Verdict::Overdue {
        problems.push(
            "its renewal is overdue: less than a quarter of its lifetime is left; see what \
             `certbot renew` says, and `systemctl status certbot.timer`"
                .into(),
        );
    }
    Row {
        verdict,
        secret: Some(slot.object().to_owned()),
        certificate: Some(Facts::new(facts, now)),
        problems,
        ..Row::default()
    }
}

/// The worst first: what a client minds, then what it will mind.
fn judge(facts: &CertFacts, faulty: bool, now: SystemTime) -> Verdict {
    if facts.not_after <= now {
        Verdict::Expired
    } else if now < facts.not_before {
        Verdict::NotYetValid
    } else if faulty {
        Verdict::Broken
    } else if facts.is_renewal_overdue(now) {
        Verdict::Overdue
    } else {
        Verdict::Good
    }
}

impl Facts {
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
    /// True if nobody has to act.
    pub(crate) fn is_good(&self) -> bool {
        self.certificates.iter().all(|row| row.verdict == Verdict::Good)
    }
}

/// RFC 3339 in UTC, to the second.
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

    /// From day 1000 to day 1090.
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
        // (day, something is wrong with the files, verdict)
        let table = [
            (999, false, Verdict::NotYetValid),
            (1000, false, Verdict::Good),
            (1067, false, Verdict::Good),
            (1068, false, Verdict::Overdue),
            (1068, true, Verdict::Broken),
            (1001, true, Verdict::Broken),
            (1089, false, Verdict::Overdue),
            (1090, false, Verdict::Expired),
            (1090, true, Verdict::Expired),
            (2000, false, Verdict::Expired),
        ];
        for (day, faulty, want) in table {
            assert_eq!(judge(&facts(), faulty, at(day)), want, "day {day}, {faulty}");
        }
    }

    #[test]
    fn what_is_left_may_be_less_than_none() {
        let left = |day| Facts::new(&facts(), at(day)).seconds_left;
        assert_eq!((left(1089), left(1090), left(1092)), (86_400, 0, -172_800));
        let facts = Facts::new(&facts(), at(1000));
        assert_eq!(facts.not_before, "1972-09-27T00:00:00Z");
        assert_eq!(facts.not_after, "1972-12-26T00:00:00Z");
    }

    #[test]
    fn a_word_of_tomorrow_is_no_error_today() {
        let row: Row = serde_json::from_str(r#"{"verdict": "revoked", "color": "red"}"#).unwrap();
        assert_eq!(row.verdict, Verdict::Unknown);
        assert!(!Certificates { certificates: vec![row] }.is_good());
    }
}
