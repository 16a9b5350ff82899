//! Check of the clock, which decides whether certificates are valid.

use std::time::SystemTime;

use crate::clock;
use crate::control::CertificateState;

use super::finding::Finding;
use super::program::{Said, Silent, ask};
use super::subject::Subject;

const CHECK: &str = "clock";

pub(super) fn look(subject: &Subject) -> Finding {
    let early = subject
        .certificates
        .certificates
        .iter()
        .filter(|row| row.verdict == CertificateState::NotYetValid)
        .find_map(|row| row.certificate.as_ref())
        .map(|facts| facts.not_before.clone());
    let said = ask("timedatectl", &["show", "--property=NTPSynchronized"]);
    judge(early.as_deref(), &said, clock::wall())
}

/// Judges the clock. `early` is the start of validity of a certificate that is not yet valid.
fn judge(early: Option<&str>, said: &Result<Said, Silent>, now: SystemTime) -> Finding {
    let shown = jiff::Timestamp::try_from(now).map_or_else(
        |_| "out of range".to_owned(),
        |stamp| stamp.round(jiff::Unit::Second).unwrap_or(stamp).to_string(),
    );
    let synchronise = || "timedatectl set-ntp true";
    if let Some(from) = early {
        let what =
            format!("the clock says {shown}, but a certificate is valid only from {from} on");
        return Finding::fail(CHECK, what, synchronise());
    }
    match said {
        Ok(said) if said.success && said.stdout.contains("NTPSynchronized=yes") => {
            Finding::ok(CHECK, format!("{shown}, synchronised"))
        }
        Ok(said) if said.success && said.stdout.contains("NTPSynchronized=no") => Finding::warn(
            CHECK,
            format!("{shown}, and no service synchronises it"),
            Some(synchronise().into()),
        ),
        _ => Finding::ok(
            CHECK,
            format!(
                "{shown}, which fits the certificates; whether a service synchronises it is not known"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::doctor::Rating;

    #[test]
    fn a_clock_is_wrong_where_a_certificate_is_from_tomorrow() {
        let said =
            |stdout: &str| Ok(Said { success: true, stdout: stdout.into(), stderr: String::new() });
        let yes = said("NTPSynchronized=yes\n");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        // (start of validity of a certificate, output of timedatectl, rating)
        let table = [
            (None, &yes, Rating::Ok),
            (None, &said("NTPSynchronized=no\n"), Rating::Warn),
            (None, &said(""), Rating::Ok),
            (None, &Err(Silent::NotInstalled), Rating::Ok),
            (Some("2026-01-01T00:00:00Z"), &yes, Rating::Fail),
        ];
        for (early, said, want) in table {
            let found = judge(early, said, now);
            assert_eq!(found.rating, want, "{found:?}");
            assert!(found.what.contains("1970-01-02T00:00:00Z"), "{found:?}");
        }
    }
}
