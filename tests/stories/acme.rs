//! HTTP-01 challenges (RFC 8555 section 8.3), answered from certbot's webroot.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use crate::support::{Gateway, Origin, backend, http_route, rule_to};

const TO_HTTPS: &str = "\
- filters:
    - type: RequestRedirect
      requestRedirect: {scheme: https, statusCode: 301}
";

#[tokio::test]
async fn a_challenge_is_answered_ahead_of_every_route_for_any_host() {
    let gateway = Gateway::setup()
        .file("routes/redirect.yaml", &http_route("https", &[], TO_HTTPS))
        .start()
        .await;
    let token = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA";
    let text = format!("{token}.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI");
    gateway.write_challenge(token, &text);

    for host in ["gateway.test", "never.heard.of", "127.0.0.1", "shop.test:80"] {
        let url = format!("http://{host}/.well-known/acme-challenge/{token}");
        let reply = gateway.get(&url).await;
        assert_eq!((reply.status(), reply.text()), (200, text.clone()), "{host}");
        let kind = reply.header("content-type").unwrap();
        assert!(kind.starts_with("text/plain") || kind == "application/octet-stream", "{kind}");
    }
    let mut wire = gateway.wire().await;
    wire.send(format!(
        "HEAD /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: gateway.test\r\n\r\n"
    ))
    .await;
    assert_eq!(wire.reply_to("HEAD").await.head.length(), Some(text.len()));
    let entry = gateway.logged("the HEAD", |entry| entry["method"] == "HEAD").await;
    assert_eq!((&entry["status"], &entry["flags"]), (&200.into(), &"-".into()), "{entry}");
    assert_eq!(gateway.get("http://shop.test/").await.status(), 301, "the rest goes to https");
}

/// The CA asks on port 80, and nobody else has business there.
#[tokio::test]
async fn a_challenge_is_for_http_alone() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    gateway.write_challenge("token", "secret");
    let reply = gateway.get("https://shop.test/.well-known/acme-challenge/token").await;
    assert_eq!(reply.text(), "shop");
    let mut wire = gateway.wire().await;
    wire.send(
        "POST /.well-known/acme-challenge/token HTTP/1.1\r\nHost: shop.test\r\n\
         Content-Length: 0\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_ne!(wire.reply().await.text(), "secret");
}

#[tokio::test]
async fn a_token_that_is_not_there_goes_on_to_the_routes() {
    let shop = Origin::replying("shop has a client of its own").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let path = "/.well-known/acme-challenge/unknown";
    let reply = gateway.get(&format!("http://shop.test{path}")).await;
    assert_eq!(reply.text(), "shop has a client of its own");
    assert_eq!(shop.last().target(), path);

    let file = gateway.write_challenge("unknown", "ours");
    assert_eq!(gateway.get(&format!("http://shop.test{path}")).await.text(), "ours");
    fs::remove_file(file).unwrap();
    assert_eq!(gateway.get(&format!("http://shop.test{path}")).await.status(), 200);
    assert_eq!(shop.requests().len(), 2);
}

#[tokio::test]
async fn no_path_leads_out_of_the_webroot() {
    let shop = Origin::replying("shop").await;
    let files = backend("shop", &[shop.address]) + &http_route("shop", &[], &rule_to("/", "shop"));
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    let webroot = gateway.webroot();
    let secret = "the content of a secret file";
    // Beside the webroot, above it, and in it under names and kinds that are no token.
    fs::write(webroot.join("../secret"), secret).unwrap();
    fs::write(webroot.join("../../secret"), secret).unwrap();
    fs::write(webroot.join(".hidden"), secret).unwrap();
    fs::write(webroot.join("a.b"), secret).unwrap();
    fs::write(webroot.join("a b"), secret).unwrap();
    fs::write(webroot.join("a%2eb"), secret).unwrap();
    fs::write(webroot.join(std::ffi::OsStr::from_bytes(b"a\xffb")), secret).unwrap();
    fs::write(webroot.join("long".repeat(33)), secret).unwrap();
    fs::create_dir(webroot.join("folder")).unwrap();
    fs::write(webroot.join("folder/secret"), secret).unwrap();
    symlink("../secret", webroot.join("link")).unwrap();
    symlink("/etc/passwd", webroot.join("passwd")).unwrap();
    symlink("folder", webroot.join("folder-link")).unwrap();
    nix::unistd::mkfifo(&webroot.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();

    let long = "long".repeat(33);
    let table = [
        "../secret",
        "../../secret",
        "..%2fsecret",
        "%2e%2e/secret",
        "%2e%2e%2fsecret",
        "..%5csecret",
        "..\\secret",
        ".hidden",
        "a.b",
        "a%20b",
        "a%2eb",
        "a%252eb",
        "a%ffb",
        &long,
        "",
        ".",
        "..",
        "folder",
        "folder/",
        "folder/secret",
        "folder//secret",
        "folder%2fsecret",
        "folder-link/secret",
        "link",
        "passwd",
        "pipe",
        "token%00",
        "token%00.txt",
        "token%0a",
        "token;x",
        "/token/../../secret",
    ];
    gateway.write_challenge("token", secret);
    for path in table {
        let url = format!("http://gateway.test/.well-known/acme-challenge/{path}");
        let mut wire = gateway.wire().await;
        let target = url.strip_prefix("http://gateway.test").unwrap();
        wire.send(format!(
            "GET {target} HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n"
        ))
        .await;
        let answer = String::from_utf8_lossy(&wire.rest().await).into_owned();
        assert!(!answer.contains(secret) && !answer.contains("root:"), "{path}: {answer}");
    }
    // The longest token there can be, and what may be in one.
    for token in ["a".repeat(128).as_str(), "Az09-_"] {
        gateway.write_challenge(token, secret);
        let url = format!("http://gateway.test/.well-known/acme-challenge/{token}");
        assert_eq!(gateway.get(&url).await.text(), secret, "{token}");
    }
}
