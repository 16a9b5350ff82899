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
mod firewall;
mod keycloak;
mod keys;
mod ports;
mod program;
mod redact;
mod time;

use std::net::IpAddr;
use std::path::PathBuf;

use crate::control::socket::Status;
use crate::control::{Certificates, Load};
use crate::observe::counted;
use crate::snapshot::Traffic;

pub(crate) use redact::Redactor;

/// Names that are looked up and asked for, at most.
const HOSTS: usize = 20;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub verdict: Verdict,
    /// What was looked at, in a word or two.
    pub check: String,
    /// One line.
    pub what: String,
    /// A command, or what to do where there is none.
    pub mend: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Ok,
    /// It may be right, or could not be seen.
    Warn,
    /// Somebody is not served, or will not be.
    Fail,
}

/// What is examined, and where.
#[derive(Debug)]
pub(crate) struct Subject {
    /// What the files come to.
    pub load: Load,
    /// As the gateway that runs has them, or as the files say to whoever runs this.
    pub certificates: Certificates,
    /// True if they are those of the gateway that runs.
    pub served: bool,
    /// What the gateway that runs says, or why it says nothing.
    pub status: Result<Status, String>,
    /// `${DOMAIN}`, if it is set.
    pub domain: Option<String>,
    /// The ports that clients use.
    pub http_port: u16,
    pub https_port: u16,
    pub letsencrypt_dir: PathBuf,
    pub acme_webroot: PathBuf,
    /// The user that the service has, where none runs that could tell.
    pub user: String,
    /// Addresses of names that are not looked up.
    pub resolve: Vec<(String, Vec<IpAddr>)>,
}

impl Finding {
    fn ok(check: impl Into<String>, what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, check: check.into(), what: what.into(), mend: None }
    }

    fn warn(
        check: impl Into<String>,
        what: impl Into<String>,
        mend: impl Into<Option<String>>,
    ) -> Self {
        let (check, what, mend) = (check.into(), what.into(), mend.into());
        Self { verdict: Verdict::Warn, check, what, mend }
    }

    fn fail(check: impl Into<String>, what: impl Into<String>, mend: impl Into<String>) -> Self {
        let (check, what, mend) = (check.into(), what.into(), Some(mend.into()));
        Self { verdict: Verdict::Fail, check, what, mend }
    }
}

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

impl Subject {
    /// Names that clients come for, without wildcards: of HTTPS listeners, of routes, and
    /// `${DOMAIN}`.
    fn hosts(&self) -> Vec<String> {
        let mut hosts: Vec<String> = self.domain.iter().cloned().collect();
        for bind in self.load.compiled.iter().flat_map(|compiled| &compiled.snapshot.binds) {
            for (host, listener) in bind.listeners.sorted() {
                hosts.extend(host);
                match &listener.traffic {
                    Traffic::Http(routes) => {
                        hosts.extend(routes.rows().into_iter().filter_map(|row| row.host));
                    }
                    Traffic::Forward(forwards) | Traffic::Passthrough(forwards) => {
                        hosts.extend(forwards.sorted().into_iter().filter_map(|(host, _)| host));
                    }
                }
            }
        }
        hosts.retain(|host| !host.starts_with("*."));
        let mut seen = std::collections::HashSet::new();
        hosts.retain(|host| seen.insert(host.clone()));
        hosts
    }

    /// True if there is an HTTPS listener.
    fn has_tls(&self) -> bool {
        let compiled = self.load.compiled.iter();
        compiled.flat_map(|compiled| &compiled.snapshot.binds).any(|bind| {
            let mut listeners = bind.listeners.sorted().into_iter();
            bind.tls && listeners.any(|(_, listener)| listener.routes().is_some())
        })
    }
}
