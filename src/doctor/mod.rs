//! Checks of the host around the gateway, each with the command that repairs a fault.
//!
//! Each check has its own file. Its `look` reads files, sockets and the output of other programs;
//! its `judge` is a pure function with a table of tests. To add a check, add a file and a line in
//! [`examine`].
//!
//! Checks do not change the host, except for one file in certbot's webroot that is removed again.
//! If a permission or a program is missing, the check returns a warning or passes, but reports no
//! fault.

mod backends;
mod certbot;
mod certificates;
mod challenge;
mod configuration;
mod dns;
mod finding;
mod firewall;
mod keycloak;
mod keys;
mod ports;
mod program;
mod redact;
mod subject;
mod time;

use crate::observe::counted;

pub(crate) use finding::{Finding, Rating};
pub(crate) use redact::Redactor;
pub(crate) use subject::Subject;

/// The maximum number of host names that are looked up.
const HOSTS: usize = 20;

/// Runs every check, in the best order for repairs.
pub(crate) fn examine(subject: &Subject) -> Vec<Finding> {
    let hosts = subject.hosts();
    let names = dns::look_up(subject, hosts.iter().take(HOSTS).map(String::as_str));
    let mut findings = configuration::look(subject);
    findings.extend(ports::look(subject));
    findings.push(firewall::look(subject));
    findings.extend(dns::look(&names));
    if hosts.len() > HOSTS {
        let what = format!("not looked up: {}", counted(hosts.len() - HOSTS, "more name"));
        findings.push(Finding::ok("DNS", what));
    }
    findings.extend(challenge::look(subject, &names));
    findings.push(time::look(subject));
    findings.extend(certificates::look(subject));
    findings.extend(keys::look(subject));
    findings.extend(certbot::look(subject));
    findings.extend(backends::look(subject));
    findings.extend(keycloak::look(subject));
    findings
}
