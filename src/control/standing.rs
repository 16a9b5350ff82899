//! Diagnostics that have been logged. A reload logs new and fixed ones, and only counts the others.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};

use crate::config::{Diagnostic, Severity};
use crate::control::ConfigSources;
use crate::control::admission::LoadRefusal;
use crate::observe::counted;

/// Diagnostics that were logged and are not fixed.
#[derive(Debug, Default)]
pub(super) struct Standing(Vec<Diagnostic>);

/// The diagnostics of a load, compared with those logged before.
#[derive(Debug, Default, PartialEq)]
struct StandingNews<'a> {
    new: Vec<&'a Diagnostic>,
    gone: Vec<Diagnostic>,
    /// Logged before.
    old: Vec<&'a Diagnostic>,
}

impl Standing {
    /// Logs the diagnostics of a load that was compiled. `sources` is the location of its files.
    pub(super) fn tell(&mut self, now: &[Diagnostic], sources: &ConfigSources) {
        let news = self.beside(now);
        for diagnostic in &news.new {
            tell(diagnostic);
        }
        for diagnostic in &news.gone {
            tracing::info!("fixed: {}", diagnostic.without_severity());
        }
        if let Some(said) = standing(&news.old, sources) {
            tracing::warn!("{said}");
        }
        self.0 = now.to_vec();
    }

    /// Logs why a load is refused, even if that was logged before: the causes, without their
    /// consequences. Fixed diagnostics are logged with the next load that is served.
    pub(super) fn tell_refused(&mut self, refusal: &LoadRefusal) {
        for line in refusal.lines() {
            tracing::error!("{line}");
        }
        let StandingNews { gone: others, .. } = self.beside(&refusal.causes);
        // Fatal diagnostics of the previous load were checked in this one, too.
        let others = others.into_iter().filter(|one| !one.fatal);
        self.0 = refusal.causes.iter().cloned().chain(others).collect();
    }

    /// Logs the diagnostics of a first load that could not be compiled: the fatal ones, and those
    /// that are new. References were not checked, so missing diagnostics do not count as fixed.
    pub(super) fn tell_failed(&mut self, now: &[Diagnostic]) {
        let StandingNews { new, gone, .. } = self.beside(now);
        let is_new = |one: &Diagnostic| new.iter().any(|new| std::ptr::eq(*new, one));
        for diagnostic in now.iter().filter(|one| one.fatal || is_new(one)) {
            tell(diagnostic);
        }
        // Fatal diagnostics of the previous load were checked in this one, too.
        let stands = gone.into_iter().filter(|one| !one.fatal);
        self.0 = now.iter().cloned().chain(stands).collect();
    }

    fn beside<'a>(&self, now: &'a [Diagnostic]) -> StandingNews<'a> {
        let mut told: HashMap<_, VecDeque<usize>> = HashMap::new();
        for (place, diagnostic) in self.0.iter().enumerate() {
            told.entry(apart_from_lines(diagnostic)).or_default().push_back(place);
        }
        let mut is_gone = vec![true; self.0.len()];
        let mut news = StandingNews::default();
        for diagnostic in now {
            let before = told.get_mut(&apart_from_lines(diagnostic));
            match before.and_then(VecDeque::pop_front) {
                Some(place) => {
                    is_gone[place] = false;
                    news.old.push(diagnostic);
                }
                None => news.new.push(diagnostic),
            }
        }
        let gone = self.0.iter().zip(is_gone).filter(|(_, is_gone)| *is_gone);
        StandingNews { gone: gone.map(|(told, _)| told.clone()).collect(), ..news }
    }
}

/// The identity of a diagnostic across loads: without its line, which changes when something is
/// inserted above it.
fn apart_from_lines(of: &Diagnostic) -> (Severity, &Path, &str, &str, &str) {
    (of.severity, &of.place.file, &of.object, &of.field, &of.problem)
}

fn tell(diagnostic: &Diagnostic) {
    let said = diagnostic.without_severity();
    match diagnostic.severity {
        Severity::Error => tracing::error!("{said}"),
        Severity::Warning => tracing::warn!("{said}"),
    }
}

/// Returns a line with the number of diagnostics logged before, and the command that lists them.
fn standing(old: &[&Diagnostic], sources: &ConfigSources) -> Option<String> {
    let count = |severity| old.iter().filter(|one| one.severity == severity).count();
    let kinds = [(count(Severity::Error), "fault"), (count(Severity::Warning), "warning")];
    let counts = kinds.into_iter().filter(|(count, _)| *count > 0);
    let counts: Vec<_> = counts.map(|(count, what)| counted(count, what)).collect();
    if counts.is_empty() {
        return None;
    }
    let shown = |path: &Path| path.display().to_string();
    let command = match sources {
        ConfigSources::Document { file, root } => {
            let root =
                root.as_ref().map(|root: &PathBuf| format!(" --config-root {}", shown(root)));
            let check = format!("edge-gateway check --config {}", shown(file));
            format!("; `{check}{}` lists them", root.unwrap_or_default())
        }
        // No command reads plain directories.
        ConfigSources::Directories(_) => String::new(),
    };
    Some(format!("still there: {}{command}", counts.join(" and ")))
}

#[cfg(test)]
mod tests {
    use crate::config::{Origin, Place, Position};

    use super::*;

    fn diagnostic(severity: Severity, line: usize, problem: &str) -> Diagnostic {
        Diagnostic {
            severity,
            fatal: problem.starts_with("fatal"),
            place: Place {
                file: Path::new("a.yaml").into(),
                position: Some(Position { line, column: 1 }),
            },
            object: String::new(),
            field: String::new(),
            problem: problem.into(),
            origin: Origin::Written,
        }
    }

    fn problems<'a>(of: impl IntoIterator<Item = &'a Diagnostic>) -> Vec<&'a str> {
        of.into_iter().map(|one| &*one.problem).collect()
    }

    #[test]
    fn what_moved_is_the_same_and_one_of_two_may_go() {
        use Severity::{Error, Warning};
        let before = [(1, "a"), (2, "b"), (3, "b"), (4, "c")];
        let standing = Standing(before.map(|(line, text)| diagnostic(Error, line, text)).into());
        let now = [(Error, 9, "a"), (Error, 2, "b"), (Warning, 4, "c"), (Error, 5, "d")];
        let now = now.map(|(severity, line, text)| diagnostic(severity, line, text));
        let StandingNews { new, gone, old } = standing.beside(&now);
        assert_eq!(problems(new), ["c", "d"]);
        assert_eq!(problems(&gone), ["b", "c"]);
        assert_eq!(problems(old), ["a", "b"]);
    }

    #[test]
    fn a_load_that_failed_mends_nothing_but_what_failed_before() {
        let of = |texts: &[&str]| -> Vec<Diagnostic> {
            texts.iter().map(|text| diagnostic(Severity::Error, 1, text)).collect()
        };
        let mut standing = Standing(of(&["a", "fatal 1"]));
        standing.tell_failed(&of(&["fatal 2", "b"]));
        assert_eq!(problems(&standing.0), ["fatal 2", "b", "a"]);
        standing.tell(&of(&["a"]), &ConfigSources::Directories(Vec::new()));
        assert_eq!(problems(&standing.0), ["a"]);
    }

    #[test]
    fn the_command_is_the_one_that_lists_them() {
        let (fault, warning) =
            (diagnostic(Severity::Error, 1, "a"), diagnostic(Severity::Warning, 1, "a"));
        let document =
            ConfigSources::Document { file: "/etc/a.yaml".into(), root: Some("/srv/host".into()) };
        assert_eq!(standing(&[], &document), None);
        assert_eq!(
            standing(&[&fault, &fault, &warning], &document).unwrap(),
            "still there: 2 faults and 1 warning; `edge-gateway check --config /etc/a.yaml \
             --config-root /srv/host` lists them"
        );
        let directories = ConfigSources::Directories(Vec::new());
        assert_eq!(standing(&[&fault], &directories).unwrap(), "still there: 1 fault");
    }
}
