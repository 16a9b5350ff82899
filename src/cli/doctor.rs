//! `edge-gateway doctor`: faults of the host around the gateway, and the commands that repair them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::app::Failed;
use crate::clock;
use crate::config;
use crate::control::socket::{StatusReport, call};
use crate::control::{Certificates, Previous, certificates};
use crate::doctor::{Finding, Rating, Redactor, Subject, examine};
use crate::observe::counted;

use super::output::print;
use super::paths::{ACME_WEBROOT, Given, Paths, Socket, Variables};
use super::text::{Colour, Screen};
use super::values::{grouped, name_and_address};

const PATIENCE: Duration = Duration::from_secs(10);
/// The width of the column with the check's name.
const NAME: usize = 13;

#[derive(Args, Debug)]
#[command(after_help = "\
It changes nothing, but for a token in certbot's webroot that it removes again. Run it as root:
others cannot see everything, and are told so. Exit code 1 if anything has failed.

Examples:
  sudo edge-gateway doctor
  sudo edge-gateway doctor --redact >report.txt      for a bug report")]
pub(super) struct Doctor {
    /// Replace host names and addresses by placeholders
    #[arg(long)]
    redact: bool,
    /// The port that clients use for HTTP
    #[arg(long, value_name = "PORT", default_value_t = 80)]
    http_port: u16,
    /// The port that clients use for HTTPS
    #[arg(long, value_name = "PORT", default_value_t = 443)]
    https_port: u16,
    /// Address to use for a name instead of a lookup; may repeat
    #[arg(long, value_name = "NAME=IP", value_parser = name_and_address)]
    resolve: Vec<(String, IpAddr)>,
    /// User that must be able to read the keys, if no gateway is running
    #[arg(long, value_name = "USER", default_value = "edge-gateway")]
    user: String,
    #[command(flatten)]
    variables: Variables,
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    given: Given,
    /// certbot's webroot
    #[arg(long, value_name = "DIR")]
    acme_webroot: Option<PathBuf>,
}

impl Doctor {
    pub(super) fn run(self) -> Result<ExitCode, Failed> {
        let redact = self.redact;
        let subject = self.subject()?;
        let mut findings = examine(&subject);
        if redact {
            let mut redactor = Redactor::new(&subject);
            for finding in &mut findings {
                finding.what = redactor.redact(&finding.what);
                finding.repair = finding.repair.as_ref().map(|repair| redactor.redact(repair));
            }
        }
        print(&report(&findings, Screen::of_stdout()))?;
        let failed = findings.iter().any(|finding| finding.rating == Rating::Fail);
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Collects the subject from the given files, else from those of the running gateway.
    fn subject(self) -> Result<Subject, Failed> {
        let status: Result<StatusReport, _> =
            call(&self.socket.control_socket, "GET", "/status", PATIENCE);
        let running = status.as_ref().ok();
        let usual = Paths::usual();
        let others = match running {
            Some(status) => Paths {
                config: status.config.clone().unwrap_or(usual.config),
                config_root: status.config_root.clone(),
                letsencrypt_dir: status.letsencrypt_dir.clone(),
                api_dir: status.api_dir.clone(),
            },
            None => usual,
        };
        let given = self.given.are_any();
        let paths = self.given.or(others);
        let acme_webroot =
            self.acme_webroot.or_else(|| running.map(|status| status.acme_webroot.clone()));
        let variables = self.variables.read()?;
        let domain = std::env::var(config::DOMAIN).ok().or_else(|| {
            let found = variables.iter().find(|(name, _)| name == config::DOMAIN);
            found.map(|(_, value)| value.clone())
        });
        let domain = domain.map(|domain| config::value_of(config::DOMAIN, &domain));
        let resolve = grouped(self.resolve);
        let load = paths.loader(resolve.clone(), variables)?.load(&Previous::default());
        let served: Option<Certificates> = match running {
            Some(_) if !given => call(&self.socket.control_socket, "GET", "/certs", PATIENCE).ok(),
            _ => None,
        };
        let read = || match &load.compiled {
            Some(compiled) => certificates(&compiled.snapshot, clock::wall()),
            None => Certificates::default(),
        };
        Ok(Subject {
            served: served.is_some(),
            certificates: served.unwrap_or_else(read),
            load,
            status: status.map_err(|error| error.to_string()),
            domain,
            http_port: self.http_port,
            https_port: self.https_port,
            letsencrypt_dir: paths.letsencrypt_dir,
            acme_webroot: acme_webroot.unwrap_or_else(|| ACME_WEBROOT.into()),
            user: self.user,
            resolve,
        })
    }
}

/// Formats a line for each finding, the command that repairs it below, and counts at the end.
fn report(findings: &[Finding], screen: Screen) -> String {
    let mut text = String::new();
    for Finding { rating, check, what, repair } in findings {
        let (word, colour) = match rating {
            Rating::Ok => ("OK  ", Colour::Green),
            Rating::Warn => ("WARN", Colour::Yellow),
            Rating::Fail => ("FAIL", Colour::Red),
        };
        let lines = screen.wrapped(&format!("{word}  {check:NAME$}  "), what);
        // The word is ASCII, so its width equals its length in bytes.
        text.push_str(&screen.paint(word, colour));
        text.push_str(&lines[word.len()..]);
        if let Some(repair) = repair {
            let indent = " ".repeat(word.len() + 2 + NAME);
            text.push_str(&screen.wrapped(&format!("{indent}-> "), repair));
        }
    }
    let count = |wanted| findings.iter().filter(|finding| finding.rating == wanted).count();
    let (failed, warnings) = (count(Rating::Fail), count(Rating::Warn));
    let (all, warnings) = (counted(findings.len(), "finding"), counted(warnings, "warning"));
    text + &format!("{all}: {failed} failed, {warnings}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_like_this() {
        let finding = |rating, check: &str, what: &str, repair: Option<&str>| Finding {
            rating,
            check: check.into(),
            what: what.into(),
            repair: repair.map(Into::into),
        };
        let findings = [
            finding(Rating::Ok, "port 80", "edge-gateway (pid 7) listens", None),
            finding(
                Rating::Fail,
                "port 443",
                "nginx (pid 9) has it",
                Some("systemctl disable --now nginx.service"),
            ),
            finding(Rating::Warn, "clock", &"long words ".repeat(12), None),
        ];
        let want = "\
OK    port 80        edge-gateway (pid 7) listens
FAIL  port 443       nginx (pid 9) has it
                   -> systemctl disable --now nginx.service
WARN  clock          long words long words long words long words long words long words long words
                     long words long words long words long words long words
3 findings: 1 failed, 1 warning
";
        assert_eq!(report(&findings, Screen::default()), want);
        let coloured = report(&findings, Screen { colours: true, ..Screen::default() });
        assert!(coloured.contains("\x1b[31mFAIL\x1b[0m  port 443"));
        let narrow = report(&findings, Screen::of_width(50));
        assert!(narrow.lines().all(|line| line.len() <= 50), "{narrow}");
    }
}
