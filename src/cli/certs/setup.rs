//! `edge-gateway certs setup`: the one certbot command that the first certificate takes.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;

use crate::app::Failed;
use crate::cli::fail;
use crate::cli::output::print;
use crate::cli::paths::{ACME_WEBROOT, LETSENCRYPT, Socket};
use crate::control::socket::{Status, call};
use crate::net::HostPattern;

/// For what the gateway says of its directories.
const PATIENCE: Duration = Duration::from_secs(10);
/// Below certbot's directory: what certbot is to run when it has a new certificate.
const HOOK: &str = "renewal-hooks/deploy/edge-gateway";

#[derive(Args, Debug)]
#[command(after_help = "\
The gateway answers certbot's challenge on port 80 and takes up the certificate by itself.

Examples:
  edge-gateway certs setup example.org www.example.org
  edge-gateway certs setup --run --email admin@example.org example.org
  edge-gateway certs setup --run example.org -- --dry-run")]
pub(super) struct Setup {
    /// Names that the certificate is to be for; certbot calls it by the first
    #[arg(required = true, value_name = "DOMAIN", value_parser = domain)]
    domains: Vec<String>,
    /// Run the command, too
    #[arg(long)]
    run: bool,
    /// For the account at the certificate authority, if there is none yet
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// certbot's webroot [default: that of the gateway that runs, else /var/lib/edge-gateway/acme]
    #[arg(long, value_name = "DIR")]
    acme_webroot: Option<PathBuf>,
    /// certbot's directory [default: that of the gateway that runs, else /etc/letsencrypt]
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
        // One that runs knows its directories; where none does, the usual ones are as good.
        let status: Option<Status> =
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
        if !self.run {
            return Ok(ExitCode::SUCCESS);
        }
        Ok(match Command::new("certbot").args(&arguments).status() {
            Ok(status) if status.success() => ExitCode::SUCCESS,
            // It has said why.
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
        for domain in &self.domains {
            arguments.extend(["-d".into(), domain.clone()]);
        }
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

/// A name that an authority can check by a challenge on port 80.
fn domain(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    let pattern = HostPattern::parse(&name).map_err(|error| error.to_string())?;
    match pattern.exact() {
        Some(_) => Ok(name),
        None => {
            Err("a wildcard takes a challenge by DNS; use a DNS plugin of certbot's, and name \
                     its lineage by the annotation `edge-gateway.io/lineage` on the Secret"
                .into())
        }
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "_@%+=:,./-".contains(char);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
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
        let table: [(&[&str], _, _, _); 4] = [
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
            ("192.0.2.1", "IP address"),
            ("-rf", "begins"),
            ("", "empty"),
        ];
        for (text, want) in table {
            let message = domain(text).unwrap_err();
            assert!(message.contains(want), "{text}: {message}");
        }
    }

    #[test]
    fn a_word_survives_the_shell() {
        // (word, as it is printed)
        let table = [("a.test", "a.test"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'")];
        for (word, want) in table {
            assert_eq!(quoted(word), want);
        }
    }
}
