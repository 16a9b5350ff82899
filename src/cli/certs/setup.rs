//! `edge-gateway certs setup`: the certbot command for the first certificate.

use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;

use crate::app::Failed;
use crate::cli::output::{fail, print};
use crate::cli::paths::{ACME_WEBROOT, LETSENCRYPT, Socket};
use crate::control::socket::{StatusReport, call};
use crate::net::{HostPattern, in_ascii, is_public};
use crate::tls::{certonly, identifiers, quoted};

/// Timeout of the status request to the gateway.
const PATIENCE: Duration = Duration::from_secs(10);
/// The deploy hook, below certbot's directory, that certbot runs for a new certificate.
const HOOK: &str = "renewal-hooks/deploy/edge-gateway";
const ABOUT_ADDRESSES: &str = "\
note: certificates for addresses need certbot 5.4 or newer; those of Let's Encrypt last six days. A listener
without `hostname` shows them to clients that come by the address.";

#[derive(Args, Debug)]
#[command(after_help = "\
The gateway answers certbot's challenge on port 80 and takes up the certificate by itself.

Examples:
  edge-gateway certs setup example.org www.example.org
  edge-gateway certs setup --run --email admin@example.org example.org
  edge-gateway certs setup --run example.org -- --dry-run")]
pub(super) struct Setup {
    /// Names that the certificate covers; certbot names it after the first
    #[arg(required = true, value_name = "DOMAIN", value_parser = domain)]
    domains: Vec<String>,
    /// Also run the command
    #[arg(long)]
    run: bool,
    /// E-mail address of the account at the certificate authority, if there is none yet
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// certbot's webroot [default: that of the running gateway, else /var/lib/edge-gateway/acme]
    #[arg(long, value_name = "DIR")]
    acme_webroot: Option<PathBuf>,
    /// certbot's directory [default: that of the running gateway, else /etc/letsencrypt]
    #[arg(long, value_name = "DIR")]
    letsencrypt_dir: Option<PathBuf>,
    #[command(flatten)]
    socket: Socket,
    /// More arguments for certbot
    #[arg(last = true, value_name = "CERTBOT ARGUMENT")]
    more: Vec<String>,
}

impl Setup {
    pub(super) fn run(self) -> Result<ExitCode, Failed> {
        // A running gateway knows its directories; without one, the default ones are used.
        let status: Option<StatusReport> =
            call(&self.socket.control_socket, "GET", "/status", PATIENCE).ok();
        let (webroot, letsencrypt) =
            status.map(|status| (status.acme_webroot, status.letsencrypt_dir)).unzip();
        let webroot = self.acme_webroot.clone().or(webroot).unwrap_or_else(|| ACME_WEBROOT.into());
        let letsencrypt =
            self.letsencrypt_dir.clone().or(letsencrypt).unwrap_or_else(|| LETSENCRYPT.into());
        let hook = Some(letsencrypt.join(HOOK)).filter(|hook| hook.exists());

        let arguments = self.arguments(&webroot, &letsencrypt, hook.as_deref());
        let line: Vec<_> = arguments.iter().map(|argument| quoted(argument)).collect();
        print(&format!("certbot {}\n", line.join(" ")))?;
        if self.domains.iter().any(|name| name.parse::<IpAddr>().is_ok()) {
            let _ = writeln!(io::stderr(), "{ABOUT_ADDRESSES}");
        }
        if !self.run {
            return Ok(ExitCode::SUCCESS);
        }
        Ok(match Command::new("certbot").args(&arguments).status() {
            Ok(status) if status.success() => ExitCode::SUCCESS,
            // certbot has printed the reason.
            Ok(_) => ExitCode::FAILURE,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fail("certbot is not installed; `apt install certbot` would be right")
            }
            Err(error) => fail(format!("certbot cannot be run: {error}")),
        })
    }

    fn arguments(&self, webroot: &Path, letsencrypt: &Path, hook: Option<&Path>) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        let mut arguments = vec!["certonly".into(), "--webroot".into()];
        arguments.extend(["-w".into(), text(webroot)]);
        if letsencrypt != Path::new(LETSENCRYPT) {
            arguments.extend(["--config-dir".into(), text(letsencrypt)]);
        }
        arguments.extend(identifiers(&self.domains));
        if let Some(email) = &self.email {
            arguments.extend(["--email".into(), email.clone()]);
        }
        if let Some(hook) = hook {
            arguments.extend(["--deploy-hook".into(), text(hook)]);
        }
        arguments.extend(self.more.iter().cloned());
        arguments
    }
}

/// Parses a name or address that an authority can validate by a challenge on port 80.
fn domain(text: &str) -> Result<String, String> {
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', ':', '?']).next().unwrap_or_default();
        return Err(format!("a URL; write the name alone: `{host}`"));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return match is_public(address) {
            true => Ok(address.to_string()),
            false => Err(format!(
                "{address} is a private address, for which no public authority issues a certificate; \
                 use a name, or a certificate of an authority of your own in a Secret"
            )),
        };
    }
    if let Some((name, port)) = text.rsplit_once(':')
        && port.parse::<u16>().is_ok()
    {
        return Err(format!("a certificate is for all ports; write the name alone: `{name}`"));
    }
    if let Some(ascii) = in_ascii(text) {
        return Err(format!("use the name as DNS has it: `{ascii}`"));
    }
    let name = text.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let pattern = HostPattern::parse(name).map_err(|error| error.to_string())?;
    match pattern.exact() {
        Some(name) => Ok(name.to_owned()),
        None => Err(format!(
            "a wildcard takes a challenge by DNS; use a DNS plugin of certbot's (`{}`)",
            certonly("", None, &[name.to_owned()])
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        setup: Setup,
    }

    fn command(flags: &[&str], letsencrypt: &str, hook: Option<&str>) -> String {
        let flags = Flags::parse_from([&["setup"], flags].concat());
        let (webroot, hook) = (Path::new("/srv/acme"), hook.map(Path::new));
        let arguments = flags.setup.arguments(webroot, Path::new(letsencrypt), hook);
        arguments.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_command_is_filled_in() {
        let usual = "/etc/letsencrypt";
        // (flags, certbot's directory, hook, command)
        let table: [(&[&str], _, _, _); 6] = [
            (&["a.test"], usual, None, "certonly --webroot -w /srv/acme -d a.test"),
            (
                &["A.test", "b.test", "--email", "a@b.test"],
                usual,
                Some("/hook"),
                "certonly --webroot -w /srv/acme -d a.test -d b.test --email a@b.test \
                 --deploy-hook /hook",
            ),
            (
                &["a.test"],
                "/srv/certs",
                Some("/my hook"),
                "certonly --webroot -w /srv/acme --config-dir /srv/certs -d a.test \
                 --deploy-hook '/my hook'",
            ),
            (
                &["203.0.113.7", "[2001:db8::7]"],
                usual,
                None,
                "certonly --webroot -w /srv/acme --preferred-profile shortlived \
                 --ip-address 203.0.113.7 --ip-address 2001:db8::7",
            ),
            (&["a.test."], usual, None, "certonly --webroot -w /srv/acme -d a.test"),
            (
                &["a.test", "--", "--dry-run", "-n"],
                usual,
                None,
                "certonly --webroot -w /srv/acme -d a.test --dry-run -n",
            ),
        ];
        for (flags, letsencrypt, hook, want) in table {
            assert_eq!(command(flags, letsencrypt, hook), want, "{flags:?}");
        }
    }

    #[test]
    fn only_names_that_port_80_can_prove_are_taken() {
        // (text, part of the message)
        let table = [
            ("*.a.test", "DNS plugin"),
            ("*.a.test", "-d '*.a.test'"),
            ("10.0.0.1", "a private address"),
            ("::1", "a private address"),
            ("bücher.example", "`xn--bcher-kva.example`"),
            ("https://a.test/x", "the name alone: `a.test`"),
            ("a.test:443", "the name alone: `a.test`"),
            ("a_b.test", "use letters, digits"),
            ("-rf", "begins"),
            ("", "empty"),
        ];
        for (text, want) in table {
            let message = domain(text).unwrap_err();
            assert!(message.contains(want), "{text}: {message}");
        }
    }
}
