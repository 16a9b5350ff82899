//! What may be wrong with the host around the gateway, and the command that mends it.
//!
//! One file a check: it looks, which takes files, sockets and other programs, and judges what it
//! has seen, which is a pure function with a table of tests. To add one: its file, and its line in
//! [`examine`].
//!
//! Nothing here changes the host, but for one file in certbot's webroot that is removed again. What
//! cannot be seen, for want of a right or a program, is a warning and never a fault.

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

pub(crate) use finding::{Finding, Verdict};
pub(crate) use redact::Redactor;
pub(crate) use subject::Subject;

/// Names that are looked up and asked for, at most.
const HOSTS: usize = 20;

/// Looks at everything, in the order in which it is best mended.
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
