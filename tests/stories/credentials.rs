//! Credentials that the gateway sends to backends for its clients.

use std::process::Output;

use crate::support::{Gateway, Origin, backend, http_route};

fn secret(name: &str, credential: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: envoy-gateway-system}}\n\
         stringData: {{credential: \"{credential}\"}}\n"
    )
}

fn filter(name: &str, injection: &str) -> String {
    format!(
        "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: HTTPRouteFilter\n\
         metadata: {{name: {name}, namespace: envoy-gateway-system}}\n\
         spec: {{credentialInjection: {{{injection}}}}}\n"
    )
}

fn extension(name: &str) -> String {
    format!(
        "{{type: ExtensionRef, extensionRef: \
         {{group: gateway.envoyproxy.io, kind: HTTPRouteFilter, name: {name}}}}}"
    )
}

/// A rule for `/NAME` with the filter `name`, and one for `/backend` with it on the backendRef.
fn files(origin: &Origin, filters: &[(&str, &str)]) -> String {
    let mut rules = String::new();
    let mut files = backend("shop", &[origin.address]);
    let to = "group: gateway.envoyproxy.io, kind: Backend, name: shop";
    for (name, injection) in filters {
        files += &filter(name, injection);
        rules += &format!(
            "- matches: [{{path: {{value: /{name}}}}}]\n  filters: [{}]\n  backendRefs: [{{{to}}}]\n",
            extension(name)
        );
    }
    rules += &format!(
        "- matches: [{{path: {{value: /backend}}}}]\n  backendRefs: [{{{to}, filters: [{}]}}]\n",
        extension(filters[0].0)
    );
    files + &http_route("shop", &["shop.test"], &rules)
}

const KEPT: &str = "credential: {valueRef: {name: token}}";
const REPLACED: &str = "overwrite: true, credential: {valueRef: {name: token}}";
const OTHER: &str = "header: X-Api-Key, credential: {valueRef: {name: token}}";

#[tokio::test]
async fn the_backend_receives_the_credential_and_nobody_else() {
    let shop = Origin::replying("shop").await;
    let filters = [("kept", KEPT), ("replaced", REPLACED), ("other", OTHER)];
    let gateway = Gateway::setup()
        .file("routes/shop.yaml", &files(&shop, &filters))
        .file("routes/secret.yaml", &secret("token", "Bearer hunter2"))
        .start()
        .await;
    let (ours, theirs) = (Some("Bearer hunter2"), Some("Bearer theirs"));
    // (path, header of the client, Authorization at the backend, X-Api-Key at the backend)
    let table = [
        ("/kept", "", ours, None),
        ("/kept", "Authorization: Bearer theirs\r\n", theirs, None),
        ("/replaced", "", ours, None),
        ("/replaced", "Authorization: Bearer theirs\r\n", ours, None),
        ("/other", "Authorization: Bearer theirs\r\n", theirs, ours),
        ("/backend", "", ours, None),
    ];
    for (path, header, authorization, key) in table {
        let reply = gateway.get_with(&format!("http://shop.test{path}"), header).await;
        assert_eq!(reply.text(), "shop", "{path} {header}");
        let seen = shop.last();
        assert_eq!(seen.header("authorization").as_deref(), authorization, "{path} {header}");
        assert_eq!(seen.header("x-api-key").as_deref(), key, "{path} {header}");
    }
    for url in ["http://shop.test/kept", "http://shop.test/backend"] {
        let explained = run(&gateway, &["explain", url]);
        assert!(explained.contains("set request header authorization: [redacted]"), "{explained}");
        assert!(!explained.contains("hunter2"), "{explained}");
    }
    let table = run(&gateway, &["check", "--table"]);
    assert!(table.contains("[redacted]") && !table.contains("hunter2"), "{table}");
    let log = gateway.process().stdout().concat() + &gateway.process().stderr();
    assert!(!log.contains("hunter2"), "{log}");
}

/// What a command says of the files of the gateway.
fn run(gateway: &Gateway, arguments: &[&str]) -> String {
    let setup = gateway.setup_ref();
    let (command, rest) = arguments.split_first().unwrap();
    let mut command = setup.command(command);
    command.env("DOMAIN", "gateway.test").args(setup.files());
    let Output { stdout, stderr, .. } = command.args(rest).output().unwrap();
    String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap()
}

#[tokio::test]
async fn a_renewed_credential_is_sent_after_a_reload() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::setup()
        .file("routes/shop.yaml", &files(&shop, &[("kept", KEPT)]))
        .file("routes/secret.yaml", &secret("token", "Bearer first"))
        .start()
        .await;
    gateway.get("http://shop.test/kept").await;
    assert_eq!(shop.last().header("authorization").as_deref(), Some("Bearer first"));
    gateway.write("routes/secret.yaml", &secret("token", "Bearer second"));
    gateway.reload().await;
    gateway.get("http://shop.test/kept").await;
    assert_eq!(shop.last().header("authorization").as_deref(), Some("Bearer second"));
}

#[tokio::test]
async fn without_its_credential_no_request_goes_out() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::setup()
        .flag("--reload-policy partial")
        .file("routes/shop.yaml", &files(&shop, &[("kept", KEPT)]))
        .start()
        .await;
    let reply = gateway.get("http://shop.test/kept").await;
    assert_eq!(reply.status(), 500, "{}", reply.text());
    assert_eq!(gateway.get("http://shop.test/backend").await.status(), 500);
    assert_eq!(shop.requests().len(), 0);
    let entry = gateway.logged("the refusal", |entry| entry["status"] == 500).await;
    assert_eq!((&entry["flags"], &entry["details"]), (&"LR".into(), &"filter_invalid".into()));
}
