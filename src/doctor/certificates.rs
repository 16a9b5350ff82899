//! Certificates that are missing, broken, out of date, or about to be.

use crate::control::{Row, Verdict};

use super::{Finding, Subject};

const CHECK: &str = "certificate";

pub(super) fn look(subject: &Subject) -> Vec<Finding> {
    let rows = &subject.certificates.certificates;
    // What this process may not read, the gateway may.
    let is_blind = !subject.served && !nix::unistd::geteuid().is_root();
    rows.iter().map(|row| judge(row, subject.domain.as_deref(), is_blind)).collect()
}

fn judge(row: &Row, domain: Option<&str>, is_blind: bool) -> Finding {
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
        Some(lineage) => format!("certbot renew --cert-name {lineage}"),
        None => "edge-gateway certs".into(),
    };
    if is_blind && problems.contains("permission denied") {
        let what = format!("{name}: only root can see its files");
        return Finding::warn(CHECK, what, Some("sudo edge-gateway doctor".into()));
    }
    match row.verdict {
        Verdict::Good => {
            let until = facts.map_or("", |facts| &*facts.not_after);
            match problems.is_empty() {
                true => Finding::ok(CHECK, format!("{name}, until {until}")),
                false => Finding::warn(CHECK, format!("{name} {problems}"), None),
            }
        }
        Verdict::Overdue | Verdict::Expired => {
            Finding::fail(CHECK, format!("{name}: {problems}"), renew)
        }
        Verdict::Missing => {
            let host = host.filter(|host| !host.starts_with("*."));
            let wanted = host.as_deref().or(domain).unwrap_or("DOMAIN");
            let mend = format!("edge-gateway certs setup --run {wanted}");
            Finding::fail(CHECK, format!("{name} has none: {problems}"), mend)
        }
        Verdict::NotYetValid => {
            Finding::fail(CHECK, format!("{name}: {problems}"), "timedatectl, to see the clock")
        }
        Verdict::Broken | Verdict::Unknown => {
            Finding::fail(CHECK, format!("{name}: {problems}"), "edge-gateway certs")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Facts, On};
    use crate::doctor;

    #[test]
    fn what_wants_somebody_comes_with_its_command() {
        let on = |hostname: Option<&str>| On {
            name: "a/eg/https".into(),
            hostname: hostname.map(Into::into),
            port: 443,
        };
        let row = |verdict, hostname, has: bool, problem: &str| Row {
            verdict,
            listeners: vec![on(hostname)],
            certificate: has.then(|| Facts {
                names: vec!["a.test".into()],
                lineage: Some("a.test-0001".into()),
                ..Facts::default()
            }),
            problems: Some(problem)
                .filter(|problem| !problem.is_empty())
                .into_iter()
                .map(Into::into)
                .collect(),
            ..Row::default()
        };
        let (ok, warn, fail) = (doctor::Verdict::Ok, doctor::Verdict::Warn, doctor::Verdict::Fail);
        // (row, verdict, mend)
        let table = [
            (row(Verdict::Good, None, true, ""), ok, None),
            (row(Verdict::Good, Some("b.test"), true, "is not for `b.test`"), warn, None),
            (
                row(Verdict::Overdue, None, true, "overdue"),
                fail,
                Some("certbot renew --cert-name a.test-0001"),
            ),
            (row(Verdict::Broken, None, true, "broken"), fail, Some("edge-gateway certs")),
            (
                row(Verdict::Missing, Some("b.test"), false, "no lineage"),
                fail,
                Some("edge-gateway certs setup --run b.test"),
            ),
            (
                row(Verdict::Missing, Some("*.b.test"), false, "no lineage"),
                fail,
                Some("edge-gateway certs setup --run a.test"),
            ),
        ];
        for (row, verdict, mend) in table {
            let found = judge(&row, Some("a.test"), false);
            assert_eq!((found.verdict, found.mend.as_deref()), (verdict, mend), "{found:?}");
        }
        let hidden = row(Verdict::Missing, None, false, "`/live`: permission denied; let");
        assert_eq!(judge(&hidden, None, true).verdict, warn);
        assert_eq!(judge(&hidden, None, false).verdict, fail);
    }
}
