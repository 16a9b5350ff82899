//! Check of the configuration: its faults, and the running gateway's version of it.

use crate::config::{Diagnostic, Severity};
use crate::control::socket::Serving;
use crate::observe::counted;

use super::finding::Finding;
use super::subject::Subject;

const CHECK: &str = "configuration";
const GATEWAY: &str = "gateway";
/// The maximum number of faults that are listed one by one.
const FAULTS: usize = 5;

pub(super) fn look(subject: &Subject) -> Vec<Finding> {
    let mut findings = files(&subject.load.diagnostics, subject.load.objects, subject.load.files);
    findings.push(gateway(subject));
    findings
}

fn files(diagnostics: &[Diagnostic], objects: usize, files: usize) -> Vec<Finding> {
    let of = |severity| diagnostics.iter().filter(move |told| told.severity == severity);
    let mut findings: Vec<_> = of(Severity::Error)
        .take(FAULTS)
        .map(|fault| Finding::fail(CHECK, fault.to_string(), "edge-gateway check"))
        .collect();
    let (faults, warnings) = (of(Severity::Error).count(), of(Severity::Warning).count());
    if faults > FAULTS {
        let more = counted(faults - FAULTS, "more fault");
        findings.push(Finding::fail(CHECK, more, "edge-gateway check"));
    }
    if let Some(first) = of(Severity::Warning).next() {
        let what = match warnings {
            1 => first.to_string(),
            more => format!("{more} warnings, the first of them: {first}"),
        };
        findings.push(Finding::warn(CHECK, what, Some("edge-gateway check".into())));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            format!("{} in {}", counted(objects, "object"), counted(files, "file")),
        ));
    }
    findings
}

fn gateway(subject: &Subject) -> Finding {
    match &subject.status {
        Ok(status) => match &status.trouble {
            Some(trouble) => Finding::fail(
                GATEWAY,
                format!("runs an older configuration, the last reload failed: {trouble}"),
                "edge-gateway check, then edge-gateway reload --wait",
            ),
            None => {
                let Serving { routes, listeners, backends, generation, .. } = status.serving;
                let what = format!(
                    "pid {} serves {} on {} to {}, generation {generation}",
                    status.pid,
                    counted(routes, "route"),
                    counted(listeners, "listener"),
                    counted(backends, "backend"),
                );
                Finding::ok(GATEWAY, what)
            }
        },
        Err(why) => Finding::fail(
            GATEWAY,
            why,
            "systemctl start edge-gateway, or see journalctl -u edge-gateway -e",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Origin, Place};
    use crate::doctor::Rating;

    fn told(severity: Severity, number: usize) -> Diagnostic {
        Diagnostic {
            severity,
            fatal: false,
            place: Place { file: Path::new("a.yaml").into(), position: None },
            object: "HTTPRoute a/b".into(),
            field: "spec".into(),
            problem: format!("{number} is wrong"),
            origin: Origin::Written,
        }
    }

    #[test]
    fn faults_are_told_with_their_places_and_not_all_of_many() {
        let found = files(&[], 4, 3);
        assert_eq!(found, [Finding::ok(CHECK, "4 objects in 3 files")]);

        let faults: Vec<_> = (1..=7).map(|number| told(Severity::Error, number)).collect();
        let found = files(&faults, 4, 3);
        assert_eq!(found.len(), FAULTS + 1);
        assert!(found[0].what.starts_with("a.yaml: HTTPRoute a/b: spec: 1 is"), "{found:?}");
        assert_eq!(found[FAULTS].what, "2 more faults");
        assert!(found.iter().all(|finding| finding.rating == Rating::Fail), "{found:?}");

        let found = files(&[told(Severity::Warning, 1), told(Severity::Warning, 2)], 4, 3);
        let [warning] = &found[..] else { panic!("{found:?}") };
        assert_eq!(warning.rating, Rating::Warn);
        assert!(warning.what.contains("2 warnings") && warning.what.contains("1 is wrong"));
    }
}
