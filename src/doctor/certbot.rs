//! Check of certbot: it renews its certificates and runs the deploy hook.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::tls::certonly;

use super::finding::Finding;
use super::program::{Said, Silent, ask};
use super::subject::Subject;

const HOOK: &str = "renewal-hooks/deploy/edge-gateway";
const TIMERS: [&str; 2] = ["certbot.timer", "snap.certbot.renew.timer"];

pub(super) fn look(subject: &Subject) -> Vec<Finding> {
    let lineages: BTreeSet<_> = subject
        .certificates
        .certificates
        .iter()
        .filter_map(|row| row.certificate.as_ref())
        .filter_map(|facts| Some((facts.lineage.as_ref()?, &facts.names)))
        .collect();
    if lineages.is_empty() {
        return Vec::new();
    }
    let hook = subject.letsencrypt_dir.join(HOOK);
    let mode = fs::metadata(&hook).map(|metadata| metadata.permissions().mode());
    let mut findings = vec![judge_hook(&hook, mode)];
    findings.push(judge_timer(&ask("systemctl", &[&["is-active"], &TIMERS[..]].concat())));
    for (lineage, names) in lineages {
        let file = subject.letsencrypt_dir.join("renewal").join(format!("{lineage}.conf"));
        let text = fs::read_to_string(&file);
        findings.push(judge_renewal(lineage, names, &text, &subject.acme_webroot));
    }
    findings
}

fn judge_hook(hook: &Path, mode: io::Result<u32>) -> Finding {
    let (check, shown) = ("deploy hook", hook.display());
    match mode {
        Ok(mode) if mode & 0o111 != 0 => Finding::ok(check, format!("{shown} is there")),
        Ok(_) => Finding::fail(
            check,
            format!("certbot does not run {shown}, because it is not executable"),
            format!("chmod a+x {shown}"),
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Finding::warn(
            check,
            format!("only root can see {shown}"),
            Some("sudo edge-gateway doctor".into()),
        ),
        Err(_) => Finding::warn(
            check,
            format!(
                "{shown} is missing: the gateway notices a renewal without it, but certbot does not \
                 learn whether the certificate can be served"
            ),
            Some("apt install --reinstall -o Dpkg::Options::=--force-confmiss edge-gateway".into()),
        ),
    }
}

fn judge_timer(said: &Result<Said, Silent>) -> Finding {
    let check = "renewal timer";
    let states = said.as_ref().map_or("", |said| &said.stdout);
    let active = TIMERS.iter().zip(states.lines()).find(|(_, state)| *state == "active");
    if let Some((timer, _)) = active {
        return Finding::ok(check, format!("{timer} is active"));
    }
    if states.trim().is_empty() {
        return Finding::warn(check, "systemd does not say whether certbot.timer is active", None);
    }
    Finding::fail(
        check,
        "certbot.timer is not active, so nothing is renewed",
        "systemctl enable --now certbot.timer",
    )
}

/// Judges the renewal configuration of a lineage; `text` is its content.
fn judge_renewal(
    lineage: &str,
    names: &[String],
    text: &io::Result<String>,
    webroot: &Path,
) -> Finding {
    let check = "renewal";
    let repair = certonly(&webroot.display().to_string(), Some(lineage), names);
    let text = match text {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let what = format!("only root can see how {lineage} is renewed");
            return Finding::warn(check, what, Some("sudo edge-gateway doctor".into()));
        }
        Err(_) => {
            let what = format!(
                "certbot has no renewal configuration of {lineage}, so it does not renew it"
            );
            return Finding::warn(check, what, Some(repair));
        }
    };
    let authenticator = values(text, "authenticator").next().unwrap_or_default();
    match authenticator {
        "webroot" => {
            // Names with their webroots follow in the section `[[webroot_map]]`.
            let map = text.split_once("[[webroot_map]]").map_or("", |(_, map)| map);
            let mapped = map.lines().filter_map(|line| line.split_once('=')).map(|(_, path)| path);
            let given = values(text, "webroot_path").flat_map(|paths| paths.split(','));
            let roots: BTreeSet<_> =
                mapped.chain(given).map(str::trim).filter(|root| !root.is_empty()).collect();
            match roots.iter().find(|root| Path::new(root) != webroot) {
                None => Finding::ok(check, format!("{lineage}, by {}", webroot.display())),
                Some(other) => Finding::fail(
                    check,
                    format!(
                        "{lineage} is renewed by the webroot {other}, and the gateway answers from {}",
                        webroot.display()
                    ),
                    repair,
                ),
            }
        }
        "standalone" | "nginx" | "apache" => Finding::fail(
            check,
            format!("{lineage} is renewed by `{authenticator}`, which needs port 80 itself"),
            repair,
        ),
        dns if dns.starts_with("dns-") => Finding::ok(check, format!("{lineage}, by {dns}")),
        other => Finding::warn(
            check,
            format!("{lineage} is renewed by `{other}`, which may need a person"),
            Some(repair),
        ),
    }
}

/// Returns the values of `name = value` lines.
fn values<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .filter(move |(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Rating;

    #[test]
    fn a_hook_that_certbot_does_not_run_is_none() {
        let missing = || Err(io::ErrorKind::NotFound.into());
        let hook = |mode| judge_hook(Path::new("/hook"), mode);
        assert_eq!(hook(Ok(0o100_755)).rating, Rating::Ok);
        assert_eq!(hook(Ok(0o100_644)).repair.as_deref(), Some("chmod a+x /hook"));
        assert_eq!(hook(missing()).rating, Rating::Warn);
    }

    #[test]
    fn one_timer_that_is_active_is_enough() {
        let said = |stdout: &str| Ok(Said { stdout: stdout.into(), ..Said::default() });
        // (output of systemctl, rating)
        let table = [
            (said("active\ninactive\n"), Rating::Ok),
            (said("inactive\nactive\n"), Rating::Ok),
            (said("inactive\ninactive\n"), Rating::Fail),
            (said("failed\ninactive\n"), Rating::Fail),
            (said(""), Rating::Warn),
            (Err(Silent::NotInstalled), Rating::Warn),
        ];
        for (said, want) in table {
            assert_eq!(judge_timer(&said).rating, want, "{said:?}");
        }
    }

    #[test]
    fn a_wildcard_is_renewed_by_dns_and_an_address_by_its_flag() {
        let text = Ok("authenticator = standalone\n".to_owned());
        // (names, command)
        let table: [(&[&str], &str); 2] = [
            (
                &["a.test", "*.a.test"],
                "certbot certonly --authenticator dns-PLUGIN --cert-name l -d a.test -d '*.a.test'",
            ),
            (
                &["203.0.113.7"],
                "certbot certonly --webroot -w /acme --cert-name l --preferred-profile shortlived \
                 --ip-address 203.0.113.7",
            ),
        ];
        for (names, want) in table {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            let found = judge_renewal("l", &names, &text, Path::new("/acme"));
            assert_eq!(found.repair.as_deref(), Some(want));
        }
    }

    #[test]
    fn a_renewal_must_not_want_our_port() {
        let note = |parameters: &str| {
            Ok(format!("version = 2.1.0\narchive_dir = /x\n[renewalparams]\n{parameters}"))
        };
        let (ok, warn, fail) = (Rating::Ok, Rating::Warn, Rating::Fail);
        // (renewal configuration, rating, part of the finding)
        let table = [
            (note("authenticator = webroot\nwebroot_path = /acme,\n"), ok, "by /acme"),
            (
                note("authenticator = webroot\n[[webroot_map]]\na.test = /acme\nb.test = /acme\n"),
                ok,
                "by /acme",
            ),
            (
                note("authenticator = webroot\n[[webroot_map]]\na.test = /var/www\n"),
                fail,
                "/var/www",
            ),
            (note("authenticator = standalone\n"), fail, "needs port 80"),
            (note("authenticator = nginx\n"), fail, "needs port 80"),
            (note("authenticator = dns-rfc2136\n"), ok, "dns-rfc2136"),
            (note("authenticator = manual\n"), warn, "manual"),
            (Err(io::ErrorKind::NotFound.into()), warn, "no renewal configuration"),
            (Err(io::ErrorKind::PermissionDenied.into()), warn, "only root"),
        ];
        let names = ["a.test".to_owned(), "b.test".to_owned()];
        for (text, rating, what) in table {
            let found = judge_renewal("a.test", &names, &text, Path::new("/acme"));
            assert_eq!(found.rating, rating, "{found:?}");
            assert!(found.what.contains(what), "{found:?}");
            if rating == fail {
                let repair =
                    "certbot certonly --webroot -w /acme --cert-name a.test -d a.test -d b.test";
                assert_eq!(found.repair.as_deref(), Some(repair));
            }
        }
    }
}
