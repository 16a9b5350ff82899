//! `edge-gateway explain`: says what the gateway does, and why.

use std::process::Command;

use serde_json::Value;

use crate::support::{Gateway, Origin, Setup, backend, http_route, refusing_address};

const RULES: &str = "\
- matches:
    - path: {value: /api}
      headers: [{name: X-Version, value: two}]
  filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {add: [{name: X-Seen, value: twice}], remove: [X-Version]}
  backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: api}]
- matches:
    - path: {value: /api}
      method: GET
  filters:
    - type: URLRewrite
      urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /v1}}
  backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: api}]
- matches: [{path: {value: /api}}]
  backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: gone}]
- matches: [{path: {value: /wide}}]
  backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: api}]
- matches: [{path: {value: /wide/narrow}}]
  backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: api}]
- matches: [{path: {type: Exact, value: /old}}]
  filters:
    - type: RequestRedirect
      requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /new}, statusCode: 302}
";

async fn setup() -> (Setup, Origin) {
    let origin = Origin::replying("yes").await;
    let setup = Gateway::setup()
        .file("routes/backends.yaml", &backend("api", &[origin.address]))
        .file("routes/dead.yaml", &backend("dead", &[refusing_address()]))
        .file("routes/api.yaml", &http_route("api", &["shop.test"], RULES));
    (setup, origin)
}

fn command(setup: &Setup) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-gateway"));
    command.env_clear().env("DOMAIN", "gateway.test").arg("explain").args(setup.files());
    command
}

/// Exit code and standard output.
fn explain(setup: &Setup, arguments: &[&str]) -> (i32, String) {
    let output = command(setup).args(arguments).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn it_says_what_took_a_request_and_what_lost() {
    let (setup, origin) = setup().await;
    let (code, text) = explain(&setup, &["http://shop.test/api/cart?x=1"]);
    let want = format!(
        "\
GET http://shop.test/api/cart?x=1
  listener  envoy-gateway-system/eg/http (any host, port 8080)
  rule      httproute/envoy-gateway-system/api/rule/1
  match     host shop.test, prefix /api method GET -> httproute/envoy-gateway-system/api/rule/1
    lost    host shop.test, prefix /api header x-version=\"two\" -> \
httproute/envoy-gateway-system/api/rule/0: the header x-version is missing
    lost    host shop.test, prefix /api -> httproute/envoy-gateway-system/api/rule/2: a match that \
is tried before it takes the request
  filter    rewrite prefix to \"/v1\"
              target: /api/cart?x=1 -> /v1/cart?x=1
  backend   100 % to backend/envoy-gateway-system/api by http/1.1: {}
  forwards  GET /v1/cart?x=1
",
        origin.address
    );
    assert_eq!((code, &*text), (0, &*want));

    let (code, text) = explain(&setup, &["POST", "http://shop.test/api", "-H", "x-version: two"]);
    assert_eq!(code, 0);
    assert!(
        text.ends_with(
            "forwards  POST /api\n            x-seen: twice\n            x-version: removed\n"
        ),
        "{text}"
    );
}

#[tokio::test]
async fn it_says_which_rule_another_reading_of_a_path_belongs_to() {
    let (setup, _origin) = setup().await;
    let (code, text) = explain(&setup, &["http://shop.test/wide%2f/narrow"]);
    assert_eq!(code, 1, "{text}");
    let (code, text) = explain(&setup, &["http://shop.test/wide/;v=1/narrow"]);
    assert_eq!(code, 1, "{text}");
    let why = "answer    400 (DPE): the path is ambiguous: \
               httproute/envoy-gateway-system/api/rule/3 takes it as it is, but a backend that \
               decodes `%2F` and drops `;` parameters reads `/wide/narrow`, which belongs to \
               httproute/envoy-gateway-system/api/rule/4\n";
    assert!(text.ends_with(why), "{text}");
    let (_, text) = explain(&setup, &["http://shop.test/wide/..;/x"]);
    let why = "400 (DPE): the path is ambiguous: dot segment beside an escaped separator\n";
    assert!(text.ends_with(why), "{text}");
}

/// Whatever it says is what a request of that kind gets.
#[tokio::test]
async fn it_agrees_with_the_gateway() {
    let (setup, origin) = setup().await;
    let gateway = setup.start().await;
    // (method, URL, status)
    let table = [
        ("GET", "http://shop.test/api", 200),
        ("POST", "http://shop.test/api", 500),
        ("GET", "http://shop.test/old", 302),
        ("GET", "http://shop.test/old/", 404),
        ("GET", "http://shop.test/apis", 404),
        ("GET", "http://blog.test/api", 404),
        ("GET", "https://shop.test/api/x", 200),
        ("GET", "http://shop.test/a%00b", 400),
        ("GET", "http://shop.test/api%2fx", 404),
        ("GET", "http://shop.test/api/caf%c3%a9", 200),
        ("GET", "http://shop.test/wide/a%2Fb", 200),
        ("GET", "http://shop.test/wide/;/narrow", 400),
        ("TRACE", "http://shop.test/api", 405),
    ];
    for (method, url, status) in table {
        let asked = origin.targets().len();
        let real = match method {
            "GET" => gateway.get(url).await,
            _ => {
                let mut wire = gateway.wire().await;
                let path = url.strip_prefix("http://shop.test").unwrap();
                wire.send(format!(
                    "{method} {path} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 0\r\n\r\n"
                ))
                .await;
                wire.reply().await
            }
        };
        assert_eq!(real.status(), status, "{method} {url}");
        let forwarded = origin.targets().get(asked).cloned();

        let (_, text) = explain(gateway.setup_ref(), &[method, url, "--json"]);
        let told: Value = serde_json::from_str(&text).unwrap();
        match &forwarded {
            Some(target) => {
                let line = told["forwarded"].as_str().unwrap_or_default().lines().next();
                assert_eq!(line, Some(&*format!("{method} {target}")), "{text}");
                assert_eq!(told["answer"], Value::Null, "{text}");
            }
            // A reference that leads nowhere has a share of the requests.
            None if told["backends"][0]["what"].as_str().is_some() => {
                assert!(
                    told["backends"][0]["what"].as_str().unwrap().ends_with(&status.to_string())
                );
            }
            None => assert_eq!(told["answer"]["status"], status, "{method} {url}: {text}"),
        }
    }
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_says_why() {
    let (setup, _origin) = setup().await;
    // (arguments, what is said)
    let table: [(&[&str], &str); 3] = [
        (
            &["http://blog.test/"],
            "no route of envoy-gateway-system/eg/http is for the host blog.test",
        ),
        (&["http://shop.test:9999/"], "no listener has port 9999; there are 8080, 8443"),
        (&["https://shop.test:8080/"], "the listeners of port 8080 speak in clear, not TLS"),
    ];
    for (arguments, want) in table {
        let (code, text) = explain(&setup, arguments);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(want), "{text}");
    }
    let output = command(&setup).arg("ftp://x/").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        said,
        "edge-gateway: `ftp://x/` is no URL; write it like https://example.org/path\n"
    );
}

/// The one question that a failed renewal raises.
#[tokio::test]
async fn a_challenge_is_explained_as_it_is_answered() {
    let (setup, _origin) = setup().await;
    let gateway = setup.start().await;
    gateway.write_challenge("here", "here.thumbprint");
    // (URL, parts of the text, what it does not say)
    let table = [
        (
            "http://shop.test/.well-known/acme-challenge/here",
            "answer    200: an HTTP-01 challenge is answered ahead of every route",
            "lost",
        ),
        (
            "http://shop.test/.well-known/acme-challenge/gone",
            "lost    HTTP-01 challenge: there is no ",
            "answer    200",
        ),
        (
            "https://shop.test/.well-known/acme-challenge/here",
            "lost    HTTP-01 challenge: answered on HTTP listeners alone",
            "answer    200",
        ),
    ];
    for (url, says, not) in table {
        let mut command = gateway.setup_ref().command("explain");
        command.arg(url);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(says), "{url}: {text}");
        assert!(!text.contains(not), "{url}: {text}");
        let answer = url.starts_with("http:").then(|| gateway.get(url));
        if let Some(answer) = answer {
            let answer = answer.await;
            assert_eq!(answer.status() == 200, text.contains("answer    200"), "{url}: {text}");
            if answer.status() == 200 {
                assert!(text.contains(&answer.text()), "{url}: {text}");
            }
        }
    }
}
