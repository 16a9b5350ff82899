//! Check of the certificates: missing, broken, expired or about to expire.

use crate::control::{CertificateRow, CertificateState, ShownOn};
use crate::observe::listed;
use crate::tls::{certonly, quoted};

use super::finding::Finding;
use super::subject::Subject;

const CHECK: &str = "certificate";

pub(super) fn look(subject: &Subject) -> Vec<Finding> {
    let rows = &subject.certificates.certificates;
    let place = JudgedWith {
        domain: subject.domain.as_deref(),
        webroot: subject.acme_webroot.display().to_string(),
        // The gateway may have permission to read files that this process cannot.
        is_blind: !subject.served && !nix::unistd::geteuid().is_root(),
    };
    let mut findings: Vec<_> = rows.iter().map(|row| judge(row, rows, &place)).collect();
    findings.extend(subject.has_tls().then(|| judge_domain(rows, &place)).flatten());
    findings
}

/// Facts other than the certificates that the judgement needs.
#[derive(Debug)]
struct JudgedWith<'a> {
    domain: Option<&'a str>,
    webroot: String,
    /// True if this user cannot read the files of the gateway.
    is_blind: bool,
}

fn judge(row: &CertificateRow, rows: &[CertificateRow], place: &JudgedWith<'_>) -> Finding {
    let listener = row.listeners.first();
    let host = listener.and_then(|on| on.hostname.clone());
    let name = match (&row.certificate, &host) {
        (Some(facts), _) => facts.names.join(", "),
        (None, Some(host)) => host.clone(),
        (None, None) => listener.map_or_else(String::new, |on| format!("listener {}", on.name)),
    };
    let problems = row.problems.join("; ");
    let facts = row.certificate.as_ref();
    let lineage = facts.and_then(|facts| facts.lineage.as_ref());
    let renew = match lineage {
        Some(lineage) => format!("certbot renew --cert-name {}", quoted(lineage)),
        None => "edge-gateway certs".into(),
    };
    if place.is_blind && problems.contains("permission denied") {
        let what = format!("{name}: only root can see its files");
        return Finding::warn(CHECK, what, Some("sudo edge-gateway doctor".into()));
    }
    match row.verdict {
        CertificateState::Good => {
            let until = facts.map_or("", |facts| &*facts.not_after);
            let told = row.problems.iter().chain(&row.notes).cloned().collect::<Vec<_>>();
            match told.is_empty() {
                true => Finding::ok(CHECK, format!("{name}, until {until}")),
                false => Finding::warn(CHECK, format!("{name}: {}", told.join("; ")), None),
            }
        }
        CertificateState::Overdue | CertificateState::Expired => {
            Finding::fail(CHECK, format!("{name}: {problems}"), renew)
        }
        CertificateState::BrokenChain => {
            let repair = match lineage {
                Some(_) => format!("{renew} --force-renewal"),
                None => "append the CA's intermediate certificate to `tls.crt`".into(),
            };
            Finding::fail(CHECK, format!("{name}: {problems}"), repair)
        }
        CertificateState::Missing => {
            let wanted = host.as_deref().or(place.domain).unwrap_or("DOMAIN");
            Finding::fail(CHECK, format!("{name} has none: {problems}"), first(wanted, place))
        }
        CertificateState::NotForHost => {
            let wanted: Vec<_> =
                row.listeners.iter().filter_map(|on| on.hostname.clone()).collect();
            let wanted = wanted.first().map_or("DOMAIN", String::as_str);
            Finding::fail(CHECK, format!("{name} {problems}"), first(wanted, place))
        }
        CertificateState::Uncovered => {
            let on = listener.map_or("", |on| &*on.name);
            let hosts = listed(row.hostnames.iter().cloned(), 10);
            let what = format!("{hosts}: no certificate of {on} covers it, so clients refuse it");
            Finding::fail(CHECK, what, cover(&row.hostnames, listener, rows, place))
        }
        CertificateState::NotYetValid => {
            Finding::fail(CHECK, format!("{name}: {problems}"), "timedatectl, to see the clock")
        }
        CertificateState::Broken | CertificateState::Unknown => {
            Finding::fail(CHECK, format!("{name}: {problems}"), "edge-gateway certs")
        }
    }
}

/// Judges `${DOMAIN}`: clients may use that name even if no route has it.
fn judge_domain(rows: &[CertificateRow], place: &JudgedWith<'_>) -> Option<Finding> {
    let domain = place.domain?;
    let names = || rows.iter().filter_map(|row| row.certificate.as_ref()).flat_map(|of| &of.names);
    let parent = domain.split_once('.').map(|(_, parent)| parent);
    let covers = |name: &String| match name.strip_prefix("*.") {
        Some(suffix) => parent == Some(suffix),
        None => name == domain,
    };
    let is_told = |row: &CertificateRow| row.hostnames.iter().any(|host| host == domain);
    // Another finding reports that there is no certificate at all.
    if names().next().is_none() || names().any(covers) || rows.iter().any(is_told) {
        return None;
    }
    let what = format!("${{DOMAIN}} is {domain}, and no certificate covers it");
    Some(Finding::fail(CHECK, what, cover(&[domain.to_owned()], None, rows, place)))
}

/// Returns the command for the first certificate of a name.
fn first(name: &str, place: &JudgedWith<'_>) -> String {
    match name.starts_with("*.") {
        true => certonly(&place.webroot, None, &[name.to_owned()]),
        false => format!("edge-gateway certs setup --run {}", quoted(name)),
    }
}

/// Returns the command that gets a certificate for `hosts`. A listener with a hostname finds a new
/// certificate by that name. A listener without one serves its existing lineage, which is extended
/// by the names.
fn cover(
    hosts: &[String],
    on: Option<&ShownOn>,
    rows: &[CertificateRow],
    place: &JudgedWith<'_>,
) -> String {
    let is_of_listener = |row: &&CertificateRow| match on {
        Some(on) => row.listeners.iter().any(|other| other.name == on.name),
        None => true,
    };
    let mut shown = rows.iter().filter(is_of_listener).filter_map(|row| row.certificate.as_ref());
    let extended = shown
        .find_map(|facts| Some((facts.lineage.as_ref()?, &facts.names)))
        .filter(|_| on.is_none_or(|on| on.hostname.is_none()));
    let (lineage, mut names) = match extended {
        Some((lineage, names)) => (Some(&**lineage), names.clone()),
        None => (None, Vec::new()),
    };
    names.extend(hosts.iter().cloned());
    certonly(&place.webroot, lineage, &names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::CertificateFacts;
    use crate::doctor;

    #[test]
    fn what_wants_somebody_comes_with_its_command() {
        let on = |hostname: Option<&str>| ShownOn {
            name: "a/eg/https".into(),
            hostname: hostname.map(Into::into),
            port: 443,
        };
        let row = |verdict, hostname, has: bool, problem: &str| CertificateRow {
            verdict,
            listeners: vec![on(hostname)],
            certificate: has.then(|| CertificateFacts {
                names: vec!["a.test".into()],
                lineage: Some("a.test-0001".into()),
                ..CertificateFacts::default()
            }),
            problems: Some(problem)
                .filter(|problem| !problem.is_empty())
                .into_iter()
                .map(Into::into)
                .collect(),
            ..CertificateRow::default()
        };
        let (ok, warn, fail) = (doctor::Rating::Ok, doctor::Rating::Warn, doctor::Rating::Fail);
        // (row, rating, repair)
        let table = [
            (row(CertificateState::Good, None, true, ""), ok, None),
            (
                row(CertificateState::NotForHost, Some("b.test"), true, "is not for `b.test`"),
                fail,
                Some("edge-gateway certs setup --run b.test"),
            ),
            (
                row(CertificateState::BrokenChain, None, true, "the chain ends"),
                fail,
                Some("certbot renew --cert-name a.test-0001 --force-renewal"),
            ),
            (
                CertificateRow {
                    hostnames: vec!["c.test".into()],
                    ..row(CertificateState::Uncovered, None, false, "c")
                },
                fail,
                Some(
                    "certbot certonly --webroot -w /acme --cert-name a.test-0001 -d a.test -d c.test",
                ),
            ),
            (
                CertificateRow {
                    hostnames: vec!["c.test".into()],
                    ..row(CertificateState::Uncovered, Some("c.test"), false, "c")
                },
                fail,
                Some("certbot certonly --webroot -w /acme -d c.test"),
            ),
            (
                row(CertificateState::Overdue, None, true, "overdue"),
                fail,
                Some("certbot renew --cert-name a.test-0001"),
            ),
            (row(CertificateState::Broken, None, true, "broken"), fail, Some("edge-gateway certs")),
            (
                row(CertificateState::Missing, Some("b.test"), false, "no lineage"),
                fail,
                Some("edge-gateway certs setup --run b.test"),
            ),
            (
                row(CertificateState::Missing, Some("*.b.test"), false, "no lineage"),
                fail,
                Some("certbot certonly --authenticator dns-PLUGIN -d '*.b.test'"),
            ),
        ];
        let place =
            |is_blind| JudgedWith { domain: Some("a.test"), webroot: "/acme".into(), is_blind };
        let served = [row(CertificateState::Good, None, true, "")];
        for (row, rating, repair) in table {
            let found = judge(&row, &served, &place(false));
            assert_eq!((found.rating, found.repair.as_deref()), (rating, repair), "{found:?}");
        }
        let hidden = row(CertificateState::Missing, None, false, "`/live`: permission denied; let");
        assert_eq!(judge(&hidden, &[], &place(true)).rating, warn);
        assert_eq!(judge(&hidden, &[], &place(false)).rating, fail);
        let noted =
            CertificateRow { notes: vec!["it has signed itself".into()], ..served[0].clone() };
        assert_eq!(judge(&noted, &[], &place(false)).rating, warn);

        let other = JudgedWith { domain: Some("z.test"), ..place(false) };
        let found = judge_domain(&served, &other).unwrap();
        let repair =
            "certbot certonly --webroot -w /acme --cert-name a.test-0001 -d a.test -d z.test";
        assert_eq!((found.rating, found.repair.as_deref()), (fail, Some(repair)));
        assert_eq!(judge_domain(&served, &place(false)), None);
        assert_eq!(judge_domain(&[], &other), None);
    }
}
