//! Check of the HTTP-01 challenge (RFC 8555 section 8.3): writes a token into certbot's webroot,
//! fetches it through port 80 as the authority would, and removes it.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::http_client::{self, Answer, Request, Server};

use super::dns::{LookedUp, own_addresses};
use super::finding::Finding;
use super::subject::Subject;

const CHECK: &str = "challenge";
const FOLDER: &str = ".well-known/acme-challenge";
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST: usize = 64 << 10;

pub(super) fn look(subject: &Subject, names: &[LookedUp]) -> Vec<Finding> {
    let Subject { acme_webroot, http_port, .. } = subject;
    let token = match TestToken::lay(acme_webroot) {
        Ok(token) => token,
        Err(error) => return vec![cannot_lay(acme_webroot, &error)],
    };
    // First from this host: a failure here is a failure for all clients.
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, *http_port));
    let host = names.first().map_or("localhost", |(host, _)| host);
    let within = Target { host, address: here, is_own: true };
    if let Some(finding) = judge(&within, &token, &token.fetch(&within)) {
        return vec![finding];
    }

    let own = own_addresses();
    let mut asked = Vec::new();
    // Names without an address are reported by the check of DNS.
    for (host, addresses) in
        names.iter().filter_map(|(host, found)| Some((host, found.as_ref().ok()?)))
    {
        // One address of each family: an authority tries IPv6, then IPv4.
        let of_kind = |v6: bool| addresses.iter().find(move |found| found.is_ipv6() == v6);
        for address in [of_kind(true), of_kind(false)].into_iter().flatten() {
            let is_own = address.is_loopback() || own.contains(address);
            asked.push(Target { host, address: SocketAddr::new(*address, *http_port), is_own });
        }
    }
    let mut findings: Vec<Finding> = thread::scope(|scope| {
        // In parallel, because each waits if a firewall drops packets.
        let mut fetches = Vec::new();
        for asked in &asked {
            let token = &token;
            fetches.push((asked, scope.spawn(move || token.fetch(asked))));
        }
        // A fetch that panicked has printed that to standard error.
        let replies =
            fetches.into_iter().filter_map(|(asked, fetch)| Some((asked, fetch.join().ok()?)));
        replies.filter_map(|(asked, reply)| judge(asked, &token, &reply)).collect()
    });
    if findings.is_empty() {
        let as_whom = match names {
            [] => "as any host".to_owned(),
            [(only, _)] => format!("as {only}"),
            [(first, _), others @ ..] => format!("as {first} and {} more", others.len()),
        };
        let what = format!("port {http_port} serves a test token, asked {as_whom}");
        findings.push(Finding::ok(CHECK, what));
    }
    findings
}

/// A token file in the webroot. Dropping it removes the file.
#[derive(Debug)]
struct TestToken {
    file: PathBuf,
    name: String,
    content: String,
}

impl TestToken {
    /// Writes a token. Missing directories are created in the same way as by certbot.
    fn lay(webroot: &Path) -> io::Result<Self> {
        if !webroot.is_dir() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut folder = webroot.to_owned();
        for name in FOLDER.split('/') {
            folder.push(name);
            if !folder.is_dir() {
                fs::create_dir(&folder)?;
                fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
            }
        }
        let name = format!("edge-gateway-doctor-{:016x}", fastrand::u64(..));
        let content = format!("{name}.{:016x}", fastrand::u64(..));
        let file = folder.join(&name);
        let token = Self { file, name, content };
        fs::write(&token.file, &token.content)?;
        // The gateway runs as another user, and root's umask may be strict.
        fs::set_permissions(&token.file, Permissions::from_mode(0o644))?;
        Ok(token)
    }

    fn fetch(&self, asked: &Target<'_>) -> io::Result<Answer> {
        let request = Request {
            method: "GET",
            host: asked.host,
            target: &format!("/{FOLDER}/{}", self.name),
            accept: "*/*",
            longest: LONGEST,
            timeout: PATIENCE,
        };
        http_client::send(Server::Tcp(asked.address), &request)
    }
}

impl Drop for TestToken {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

fn cannot_lay(webroot: &Path, error: &io::Error) -> Finding {
    let shown = webroot.display();
    match error.kind() {
        io::ErrorKind::NotFound => Finding::fail(
            CHECK,
            format!("the webroot {shown} is missing, so certbot cannot write its token"),
            format!("install -d -m 0755 {shown}"),
        ),
        io::ErrorKind::PermissionDenied => Finding::warn(
            CHECK,
            format!("not tried: only root may write to {shown}"),
            Some("sudo edge-gateway doctor".into()),
        ),
        _ => Finding::fail(
            CHECK,
            format!("the webroot {shown} cannot be written to: {error}"),
            format!("ls -ld {shown}, and df {shown}"),
        ),
    }
}

/// A server that is asked for the token.
#[derive(Clone, Copy, Debug)]
struct Target<'a> {
    host: &'a str,
    address: SocketAddr,
    is_own: bool,
}

/// `None` if the token was returned.
fn judge(asked: &Target<'_>, token: &TestToken, reply: &io::Result<Answer>) -> Option<Finding> {
    let Target { host, address, is_own } = *asked;
    let (what, repair) = match reply {
        Ok(Answer { status: 200, body, .. }) if *body == token.content.as_bytes() => return None,
        Ok(Answer { status: 200, .. }) => (
            format!("{address} answers for {host}, but not with the token"),
            format!("see which server answers: curl -i http://{host}/"),
        ),
        Ok(Answer { status: 301 | 302 | 307 | 308, location, .. }) => (
            format!(
                "{address} redirects the challenge for {host} to {}; another server has the port",
                location.as_deref().unwrap_or("nowhere")
            ),
            format!("see which server answers: curl -i http://{host}/"),
        ),
        Ok(Answer { status, .. }) => (
            format!("{address} answers the challenge for {host} with {status}"),
            format!(
                "start the gateway with --acme-webroot {}, or see which server answers: curl -i http://{host}/",
                webroot(token).display()
            ),
        ),
        Err(error) => (
            format!("{address} does not answer the challenge for {host}: {error}"),
            "see the findings about ports, firewall and DNS".into(),
        ),
    };
    Some(match is_own || reply.is_ok() {
        true => Finding::fail(CHECK, what, repair),
        false => Finding::warn(
            CHECK,
            format!("{what}; many routers do not let a host reach its own public address"),
            Some(format!("try from another host: curl -i http://{host}/")),
        ),
    })
}

/// Returns the webroot that contains a token.
fn webroot(token: &TestToken) -> &Path {
    token.file.ancestors().nth(3).unwrap_or(&token.file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Rating;

    #[test]
    fn a_token_is_laid_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let token = TestToken::lay(dir.path()).unwrap();
        let file = dir.path().join(FOLDER).join(&token.name);
        assert_eq!(fs::read_to_string(&file).unwrap(), token.content);
        assert_eq!(webroot(&token), dir.path());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o644, 0o755));
        let path = format!("/{FOLDER}/{}", token.name);
        assert_eq!(crate::proxy::acme_token(&path), Some(&*token.name), "the gateway takes it");
        drop(token);
        assert!(!file.exists());
        let error = TestToken::lay(&dir.path().join("missing")).unwrap_err();
        let found = cannot_lay(Path::new("/missing"), &error);
        assert_eq!(found.rating, Rating::Fail);
        assert_eq!(found.repair.as_deref(), Some("install -d -m 0755 /missing"));
    }

    #[test]
    fn only_the_token_itself_is_good() {
        let dir = tempfile::tempdir().unwrap();
        let token = TestToken::lay(dir.path()).unwrap();
        let reply = |status, body: &str, location: Option<&str>| {
            Ok(Answer { status, location: location.map(Into::into), body: body.into() })
        };
        let refused = || Err(io::ErrorKind::ConnectionRefused.into());
        // (reply, the address belongs to this host, finding)
        let table = [
            (reply(200, &token.content, None), true, None),
            (
                reply(200, "Welcome to nginx", None),
                true,
                Some((Rating::Fail, "not with the token")),
            ),
            (
                reply(301, "", Some("https://a.test/x")),
                false,
                Some((Rating::Fail, "redirects the challenge for a.test to https://a.test/x")),
            ),
            (reply(404, "", None), true, Some((Rating::Fail, "with 404"))),
            (refused(), true, Some((Rating::Fail, "does not answer"))),
            (refused(), false, Some((Rating::Warn, "public address"))),
        ];
        for (reply, is_own, want) in table {
            let address = "192.0.2.7:80".parse().unwrap();
            let found = judge(&Target { host: "a.test", address, is_own }, &token, &reply);
            let got = found.as_ref().map(|found| found.rating);
            assert_eq!(got, want.map(|(rating, _)| rating), "{reply:?}");
            if let (Some(found), Some((_, part))) = (found, want) {
                assert!(found.what.contains(part), "{found:?}");
            }
        }
    }
}
