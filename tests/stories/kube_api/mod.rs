//! The objects of the gateway over an API like that of Kubernetes: what may be read and written, by
//! whom, and what becomes of it; by hand, and with kubectl.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::support::{
    Gateway, Origin, Reply, Setup, Tls, Wire, backend, free_port, http_route, rule_to, serve_all,
    soon, until,
};

mod kubectl;
mod patches;

const GROUP: &str = "/apis/gateway.networking.k8s.io/v1";
const NAMESPACE: &str = "envoy-gateway-system";

/// The API of a gateway, as somebody sees it who has the token.
struct Api {
    gateway: Gateway,
    address: SocketAddr,
    token: String,
    kubeconfig: String,
}

impl Api {
    async fn start(setup: Setup) -> Self {
        let gateway = setup.flag("--api-listen 127.0.0.1:0").start().await;
        let kubeconfig = output(gateway.setup_ref().command("kubeconfig")).await;
        let kubeconfig = String::from_utf8(kubeconfig.stdout).unwrap();
        let word = |name: &str| {
            let (_, rest) = kubeconfig.split_once(name).unwrap_or_else(|| panic!("{kubeconfig}"));
            rest.lines().next().unwrap().trim().trim_matches('"').to_owned()
        };
        let address = word("server: https://").parse().unwrap();
        let token = fs::read_to_string(word("tokenFile: ")).unwrap();
        Self { gateway, address, token, kubeconfig }
    }

    async fn writable() -> Self {
        Self::start(Gateway::setup().flag("--api-writable")).await
    }

    async fn raw(&self, head: &str, body: &str) -> Reply {
        let mut wire = Wire::connect(self.address).await;
        let length = body.len();
        wire.send(format!("{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"))
            .await;
        wire.reply().await
    }

    async fn call(&self, method: &str, path: &str, kind: &str, body: &str) -> (Reply, Value) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: {kind}",
            self.address, self.token
        );
        let reply = self.raw(&head, body).await;
        let body = serde_json::from_str(&reply.text()).unwrap_or_default();
        (reply, body)
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (reply, body) = self.call("GET", path, "", "").await;
        (reply.status(), body)
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let (reply, body) = self.call(method, path, kind, &body.to_string()).await;
        (reply.status(), body)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.gateway.path("common/api").join(name)
    }
}

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn routes() -> String {
    format!("{GROUP}/namespaces/{NAMESPACE}/httproutes")
}

/// A route of the Gateway to the Backend `shop`.
fn route(name: &str, host: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": { "name": name },
        "spec": {
            "parentRefs": [{ "name": "eg" }],
            "hostnames": [host],
            "rules": [{
                "backendRefs": [
                    { "group": "gateway.envoyproxy.io", "kind": "Backend", "name": "shop" }
                ],
            }],
        },
    })
}

/// Waits for no watch of files: what was written is served when the answer is there.
#[tokio::test]
async fn what_is_written_is_served_before_the_answer() {
    let shop = Origin::replying("shop").await;
    let setup = Gateway::setup().file("routes/shop.yaml", &backend("shop", &[shop.address]));
    let api = Api::start(setup.flag("--api-writable")).await;
    assert_eq!(api.gateway.get("http://shop.test/").await.status(), 404);

    let (status, made) = api.send("POST", &routes(), &route("cart", "shop.test")).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(api.gateway.get("http://shop.test/").await.text(), "shop");
    let metadata = &made["metadata"];
    assert_eq!(metadata["generation"], 1, "{made}");
    assert_eq!(metadata["namespace"], NAMESPACE, "{made}");
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(metadata[field].is_string(), "{field}: {made}");
    }
    // As the CRD has it by default, and as the gateway found it.
    assert_eq!(made["spec"]["rules"][0]["backendRefs"][0]["weight"], 1, "{made}");
    let condition = &made["status"]["parents"][0]["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&"Accepted".into(), &"True".into()));
    assert_eq!(condition["observedGeneration"], 1, "{condition}");
    let file = api.file(&format!("httproute.{NAMESPACE}.cart.yaml"));
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("hostnames:\n  - shop.test\n") && !text.contains("status"), "{text}");
    let told = format!("created HTTPRoute {NAMESPACE}/cart over the API");
    until("the log names it", || api.gateway.process().stderr().contains(&told)).await;

    // Labels are no change of what is meant.
    let one = format!("{}/cart", routes());
    let (status, labelled) =
        api.send("PATCH", &one, &json!({ "metadata": { "labels": { "a": "b" } } })).await;
    assert_eq!((status, &labelled["metadata"]["generation"]), (200, &1.into()), "{labelled}");
    let (status, patched) =
        api.send("PATCH", &one, &json!({ "spec": { "hostnames": ["blog.test"] } })).await;
    assert_eq!((status, &patched["metadata"]["generation"]), (200, &2.into()), "{patched}");
    let condition = &patched["status"]["parents"][0]["conditions"][0];
    assert_eq!(condition["observedGeneration"], 2, "{condition}");
    assert_eq!(api.gateway.get("http://shop.test/").await.status(), 404);
    assert_eq!(api.gateway.get("http://blog.test/").await.text(), "shop");

    let (status, conflict) = api.send("PUT", &one, &made).await;
    assert_eq!((status, &conflict["reason"]), (409, &"Conflict".into()), "{conflict}");
    let mut next = patched.clone();
    next["spec"]["hostnames"] = json!(["shop.test"]);
    let (status, next) = api.send("PUT", &one, &next).await;
    assert_eq!(status, 200, "{next}");
    let (status, again) = api.send("POST", &routes(), &route("cart", "shop.test")).await;
    assert_eq!((status, &again["reason"]), (409, &"AlreadyExists".into()), "{again}");

    // A restart finds it as it was.
    let reloaded = api.gateway.reload().await;
    assert!(reloaded.is("READY"));
    let (_, read) = api.get(&one).await;
    assert_eq!(read["metadata"], next["metadata"]);

    let (status, gone) = api.send("DELETE", &one, &Value::Null).await;
    assert_eq!((status, &gone["status"]), (200, &"Success".into()), "{gone}");
    assert!(!file.exists());
    assert_eq!(api.gateway.get("http://shop.test/").await.status(), 404);
    let (status, missing) = api.get(&one).await;
    assert_eq!((status, &missing["reason"]), (404, &"NotFound".into()), "{missing}");
    let message = "httproutes.gateway.networking.k8s.io \"cart\" not found";
    assert_eq!(missing["message"], message);
}

#[tokio::test]
async fn what_stands_in_a_file_of_somebodys_is_read_and_left_alone() {
    let api = Api::writable().await;
    let one = format!("{GROUP}/namespaces/{NAMESPACE}/gateways/eg");
    let (status, gateway) = api.get(&one).await;
    assert_eq!(status, 200, "{gateway}");
    assert_eq!(gateway["spec"]["listeners"][0]["allowedRoutes"]["namespaces"]["from"], "Same");
    let before = fs::read_to_string(api.gateway.path("common/gateway.yaml")).unwrap();
    for (method, body) in [
        ("PATCH", json!({ "spec": { "listeners": [] } })),
        ("PUT", gateway.clone()),
        ("DELETE", Value::Null),
    ] {
        let (status, refused) = api.send(method, &one, &body).await;
        assert_eq!((status, &refused["reason"]), (403, &"Forbidden".into()), "{method}: {refused}");
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains("common/gateway.yaml"), "{message}");
    }
    assert_eq!(fs::read_to_string(api.gateway.path("common/gateway.yaml")).unwrap(), before);

    // Its own sockets, as a Service that nobody can change.
    let services = format!(
        "/api/v1/namespaces/{NAMESPACE}/services?labelSelector=gateway.networking.k8s.io%2Fgateway-name%3Deg"
    );
    let (_, list) = api.get(&services).await;
    let service = &list["items"][0];
    assert_eq!(service["spec"]["ports"][0]["port"], 8080, "{list}");
    let (status, _) = api
        .send("DELETE", &format!("/api/v1/namespaces/{NAMESPACE}/services/eg-eg"), &Value::Null)
        .await;
    assert_eq!(status, 403);
}

#[tokio::test]
async fn what_an_api_server_would_refuse_is_refused_as_it_would() {
    let api = Api::writable().await;
    let bad = |edit: fn(&mut Value)| {
        let mut route = route("cart", "shop.test");
        edit(&mut route);
        route
    };
    // (object, status, reason, part of the message)
    let table = [
        (
            bad(|route| route["spec"]["hostnames"] = json!(["A.test"])),
            422,
            "Invalid",
            "HTTPRoute.gateway.networking.k8s.io \"cart\" is invalid: spec.hostnames[0]: Invalid value:",
        ),
        (bad(|route| route["spec"]["rules"] = json!("x")), 422, "Invalid", "spec.rules"),
        (bad(|route| route["metadata"]["name"] = "A".into()), 422, "Invalid", "metadata.name"),
        (bad(|route| route["metadata"] = json!({})), 422, "Invalid", "name or generateName"),
        (bad(|route| route["kind"] = "Gateway".into()), 400, "BadRequest", "does not match"),
        (
            bad(|route| route["metadata"]["namespace"] = "other".into()),
            400,
            "BadRequest",
            "does not match the namespace",
        ),
    ];
    for (object, status, reason, part) in table {
        let (got, refused) = api.send("POST", &routes(), &object).await;
        assert_eq!((got, &refused["reason"]), (status, &reason.into()), "{refused}");
        assert!(refused["message"].as_str().unwrap().contains(part), "{part}: {refused}");
        assert_eq!(refused["code"], status, "{refused}");
    }
    let (_, refused) = api
        .send("POST", &routes(), &bad(|route| route["spec"]["hostnames"] = json!(["A.test"])))
        .await;
    assert_eq!(refused["details"]["causes"][0]["field"], "spec.hostnames[0]", "{refused}");

    let misspelt = bad(|route| route["spec"]["hostname"] = "x".into());
    let strict = format!("{}?fieldValidation=Strict", routes());
    let (status, refused) = api.send("POST", &strict, &misspelt).await;
    assert_eq!(status, 400, "{refused}");
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("strict decoding error: unknown field \"spec.hostname\""),
        "{message}"
    );
    let (reply, made) =
        api.call("POST", &routes(), "application/json", &misspelt.to_string()).await;
    assert_eq!(reply.status(), 201, "{made}");
    let warning = reply.header("warning").unwrap();
    assert!(warning.starts_with("299 - \"unknown field \\\"spec.hostname\\\"\""), "{warning}");
    assert!(made["spec"].get("hostname").is_none(), "{made}");

    let (reply, body) =
        api.call("PATCH", &format!("{}/cart", routes()), "application/x", "{}").await;
    assert_eq!((reply.status(), &body["reason"]), (415, &"UnsupportedMediaType".into()), "{body}");
    let strategic = "application/strategic-merge-patch+json";
    let (reply, _) = api.call("PATCH", &format!("{}/cart", routes()), strategic, "{}").await;
    assert_eq!(reply.status(), 415);
    let (status, _) = api.send("PUT", &format!("{}/cart/status", routes()), &made).await;
    assert_eq!(status, 403);
    assert_eq!(api.send("DELETE", &routes(), &Value::Null).await.0, 405);
    assert_eq!(api.get("/apis/gateway.networking.k8s.io/v1/nothings").await.0, 404);
    assert_eq!(api.get("/api/v1/pods").await.0, 404);
    assert_eq!(api.call("POST", &routes(), "application/json", "{").await.0.status(), 400);
}

/// What serves is still served, and the file is again as it was.
#[tokio::test]
async fn a_change_with_which_nothing_loads_is_undone() {
    let api = Api::writable().await;
    let gateways = format!("{GROUP}/namespaces/{NAMESPACE}/gateways");
    let port = free_port();
    let own = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": { "name": "own" },
        "spec": {
            "gatewayClassName": "eg",
            "listeners": [{ "name": "own", "protocol": "HTTP", "port": port }],
        },
    });
    let (status, made) = api.send("POST", &gateways, &own).await;
    assert_eq!(status, 201, "{made}");
    let file = api.file(&format!("gateway.{NAMESPACE}.own.yaml"));
    let before = fs::read_to_string(&file).unwrap();
    // A port cannot change from every address to one of them without a gap.
    let address = json!({ "spec": { "addresses": [{ "value": "127.0.0.1" }] } });
    let (status, refused) = api.send("PATCH", &format!("{gateways}/own"), &address).await;
    assert_eq!(status, 500, "{refused}");
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("nothing was changed") && message.contains("in a restart alone"),
        "{message}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    let mut wire = Wire::connect(([127, 0, 0, 1], port).into()).await;
    wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n").await;
    assert_eq!(wire.reply().await.status(), 404);
}

/// What is written over the API is judged as an API server judges it: what is not valid is refused,
/// and everything else becomes conditions. A file that somebody is writing has no part in it.
#[tokio::test]
async fn files_that_are_refused_keep_nobody_from_the_api_and_the_other_way_round() {
    let shop = Origin::replying("shop").await;
    let setup = Gateway::setup().file("routes/shop.yaml", &backend("shop", &[shop.address]));
    let api = Api::start(setup.flag("--api-writable")).await;
    let one = |name: &str| format!("{}/{name}", routes());
    let (status, _) = api.send("POST", &routes(), &route("first", "shop.test")).await;
    assert_eq!(status, 201);
    let broken = [
        ("not YAML", "kind: [\n".to_owned()),
        ("a fault", http_route("broken", &["a.example.test"], &rule_to("no-slash", "shop"))),
    ];
    for (what, text) in broken {
        api.gateway.write("routes/broken.yaml", &text);
        let ready = api.gateway.reload().await;
        assert!(ready.value("STATUS").unwrap().contains("last reload failed"), "{what}: {ready:?}");
        let (status, made) = api.send("POST", &routes(), &route("second", "blog.test")).await;
        assert_eq!(status, 201, "{what}: {made}");
        assert_eq!(api.gateway.get("http://blog.test/").await.text(), "shop", "{what}");
        assert_eq!(api.gateway.get("http://shop.test/").await.text(), "shop", "{what}");
        // The files are refused all the same.
        let status = output(api.gateway.setup_ref().command("status")).await;
        let told = String::from_utf8(status.stdout).unwrap();
        assert!(told.contains("the files are refused"), "{what}: {told}");
        assert_eq!(api.send("DELETE", &one("second"), &Value::Null).await.0, 200, "{what}");
        api.gateway.remove("routes/broken.yaml");
        api.gateway.reload().await;
    }

    // A fault that came over the API is known from then on.
    let mut lost = route("lost", "one.example.test");
    lost["spec"]["rules"][0]["backendRefs"][0]["name"] = "nowhere".into();
    let (status, made) = api.send("POST", &routes(), &lost).await;
    assert_eq!(status, 201, "{made}");
    let resolved = &made["status"]["parents"][0]["conditions"][1];
    assert_eq!(resolved["reason"], "BackendNotFound", "{made}");
    let ready = api.gateway.reload().await;
    assert!(!ready.value("STATUS").unwrap().contains("failed"), "{ready:?}");
    // Everything that serves may be taken away by it, too.
    for name in ["first", "lost"] {
        assert_eq!(api.send("DELETE", &one(name), &Value::Null).await.0, 200);
    }
    assert_eq!(api.gateway.get("http://shop.test/").await.status(), 404);
}

#[tokio::test]
async fn nobody_is_answered_without_the_token() {
    let api = Api::start(Gateway::setup()).await;
    let host = api.address;
    let bearer = format!("Authorization: Bearer {}", api.token);
    // (head after the request line, status)
    let table = [
        (format!("Host: {host}\r\n{bearer}"), 200),
        (format!("Host: localhost\r\n{bearer}"), 200),
        (format!("Host: [::1]:1\r\n{}", bearer.replace("Bearer", "bearer")), 200),
        (format!("Host: {host}"), 401),
        (format!("Host: {host}\r\nAuthorization: Bearer x{}", api.token), 401),
        (format!("Host: {host}\r\nAuthorization: Bearer {}", &api.token[1..]), 401),
        (format!("Host: {host}\r\nAuthorization: Basic {}", api.token), 401),
        (format!("Host: example.com\r\n{bearer}"), 403),
        (format!("Host: {host}\r\n{bearer}\r\nOrigin: http://localhost"), 403),
        (format!("Host: {host}\r\n{bearer}\r\nAccept: text/html"), 406),
    ];
    for (head, status) in table {
        let reply = api.raw(&format!("GET /api HTTP/1.1\r\n{head}"), "").await;
        assert_eq!(reply.status(), status, "{head}");
    }
    // Without --api-writable it is there to be read.
    let (status, refused) = api.send("POST", &routes(), &route("cart", "shop.test")).await;
    assert_eq!(status, 403, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("--api-writable"), "{refused}");
    let token = api.gateway.setup_ref().control_socket().with_file_name("api-token");
    let mode = fs::metadata(token).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn bodies_and_heads_have_an_end() {
    let api = Api::writable().await;
    let large = format!("{{\"data\": \"{}\"}}", "x".repeat(3 << 20));
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}",
        routes(),
        api.token
    );
    let mut wire = Wire::connect(api.address).await;
    // The gateway may have answered before all of it is sent.
    let _ = wire
        .push(format!("{head}\r\nContent-Length: {}\r\n\r\n{large}", large.len()).as_bytes())
        .await;
    assert_eq!(wire.reply().await.status(), 413);

    let mut wire = Wire::connect(api.address).await;
    let _ = wire.push(format!("{head}\r\nX: {}\r\n\r\n", "x".repeat(300 << 10)).as_bytes()).await;
    let rest = String::from_utf8_lossy(&wire.rest().await).into_owned();
    assert!(rest.starts_with("HTTP/1.1 431"), "{rest}");

    // A body that does not come.
    let mut wire = Wire::connect(api.address).await;
    wire.send(format!("{head}\r\nContent-Length: 10\r\n\r\n")).await;
    assert_eq!(wire.reply().await.status(), 400);
    // Silence where a handshake or a request should be.
    let mut silent = Wire::connect(api.address).await;
    assert_eq!(soon("the end of a silent connection", silent.rest()).await, b"");
}

#[tokio::test]
async fn those_who_say_nothing_keep_nobody_out() {
    let api = Api::start(Gateway::setup()).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(Wire::connect(api.address).await);
    }
    // All that may be open are, until the first of them have been silent for too long.
    assert_eq!(soon("an answer", api.get("/version")).await.0, 200);
}

/// Without its address the API is not served, and everything else is.
#[tokio::test]
async fn an_address_that_is_taken_stops_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let flag = format!("--api-listen {}", taken.local_addr().unwrap());
    let gateway = Gateway::setup().flag(&flag).start().await;
    assert_eq!(gateway.get("http://shop.test/").await.status(), 404);
    let config = output(gateway.setup_ref().command("kubeconfig")).await;
    assert_eq!(config.status.code(), Some(1), "{config:?}");
    assert!(String::from_utf8_lossy(&config.stderr).contains("--api-listen"), "{config:?}");
}

/// A token that others can read, or that is none, opens nothing.
#[tokio::test]
async fn a_token_file_that_keeps_no_secret_is_not_used() {
    let setup = Gateway::setup().file("token", "0123456789abcdef");
    let flag =
        format!("--api-listen 127.0.0.1:0 --api-token-file {}", setup.path("token").display());
    fs::set_permissions(setup.path("token"), fs::Permissions::from_mode(0o644)).unwrap();
    let gateway = setup.flag(&flag).start().await;
    let config = output(gateway.setup_ref().command("kubeconfig")).await;
    assert_eq!(config.status.code(), Some(1), "{config:?}");
    let log = gateway.process().stdout().join("\n") + &gateway.process().stderr();
    assert!(log.contains("chmod 600"), "{log}");
}

/// Reads the lines of a watch.
struct Watch(Wire);

impl Watch {
    async fn start(api: &Api, query: &str) -> (u16, Self) {
        let mut wire = Wire::connect(api.address).await;
        let path = format!("{}?watch=true{query}", routes());
        wire.send(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
            api.token
        ))
        .await;
        let head = wire.head().await.unwrap();
        (head.status(), Self(wire))
    }

    /// Type and name of the next event.
    async fn next(&mut self) -> (String, String) {
        let chunk = soon("an event", self.0.through(b"\r\n")).await.unwrap();
        let size = String::from_utf8(chunk).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let line = self.0.exactly(size + 2).await;
        let event: Value = serde_json::from_slice(&line).unwrap();
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
        (event["type"].as_str().unwrap().to_owned(), name.to_owned())
    }
}

#[tokio::test]
async fn a_watch_tells_what_happens_and_to_whom_it_matters() {
    let api = Api::writable().await;
    api.send("POST", &routes(), &route("first", "shop.test")).await;
    let (_, list) = api.get(&routes()).await;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let (_, mut all) = Watch::start(&api, "").await;
    let (_, mut later) = Watch::start(&api, &format!("&resourceVersion={version}")).await;
    let (_, mut labelled) = Watch::start(&api, "&labelSelector=a%3Db").await;
    let event = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    assert_eq!(all.next().await, event("ADDED", "first"));

    let one = format!("{}/first", routes());
    api.send("PATCH", &one, &json!({ "metadata": { "labels": { "a": "b" } } })).await;
    api.send("PATCH", &one, &json!({ "metadata": { "labels": { "a": "c" } } })).await;
    api.send("DELETE", &one, &Value::Null).await;
    for kind in ["MODIFIED", "MODIFIED", "DELETED"] {
        assert_eq!(all.next().await, event(kind, "first"));
        assert_eq!(later.next().await, event(kind, "first"));
    }
    // To who looks for a label, an object is there while it has it.
    assert_eq!(labelled.next().await, event("ADDED", "first"));
    assert_eq!(labelled.next().await, event("DELETED", "first"));

    let (status, _) = Watch::start(&api, "&resourceVersion=7").await;
    assert_eq!(status, 410);
    let (status, mut short) = Watch::start(&api, "&timeoutSeconds=1").await;
    assert_eq!(status, 200);
    let end = soon("the end of a watch", short.0.through(b"0\r\n\r\n")).await;
    assert_eq!(end.as_deref(), Some(&b"0\r\n\r\n"[..]));
}

#[tokio::test]
async fn watches_are_limited() {
    let api = Api::start(Gateway::setup()).await;
    let mut watches = Vec::new();
    let refused = loop {
        let (status, watch) = Watch::start(&api, "").await;
        watches.push(watch);
        if status != 200 || watches.len() > 1000 {
            break status;
        }
    };
    assert_eq!((refused, watches.len()), (429, 129));
    // Those that end make room for others.
    watches.clear();
    soon("room for a watch", async { while Watch::start(&api, "").await.0 != 200 {} }).await;
    assert_eq!(api.get("/version").await.0, 200);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let api = Api::writable().await;
    for name in ["a", "b", "c"] {
        api.send("POST", &routes(), &route(name, "shop.test")).await;
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let (_, first) = api.get(&format!("{}?limit=2", routes())).await;
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = api.get(&format!("{}?limit=2&continue={token}", routes())).await;
    assert_eq!(names(&rest), ["c"]);
    assert!(rest["metadata"].get("continue").is_none(), "{rest}");
    assert_eq!(api.get(&format!("{}?continue=%25", routes())).await.0, 400);
}

fn secret() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "key" },
        "stringData": { "password": "hunter2" },
    })
}

#[tokio::test]
async fn secrets_are_written_and_not_told() {
    let secrets = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    let one = format!("{secrets}/key");
    let api = Api::writable().await;
    let (status, made) = api.send("POST", &secrets, &secret()).await;
    assert_eq!((status, &made["data"]["password"]), (201, &"cmVkYWN0ZWQ=".into()), "{made}");
    let file = api.file(&format!("secret.{NAMESPACE}.key.yaml"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&file).unwrap().contains("password: aHVudGVyMg=="));
    // The mark that stands for it leaves it as it is.
    let mut read = made.clone();
    read["metadata"]["labels"] = json!({ "a": "b" });
    assert_eq!(api.send("PUT", &one, &read).await.0, 200);
    assert!(fs::read_to_string(&file).unwrap().contains("password: aHVudGVyMg=="));
    for path in [&one, &secrets, &"/api/v1/secrets".to_owned()] {
        let (reply, _) = api.call("GET", path, "", "").await;
        assert!(!reply.text().contains("aHVudGVyMg"), "{path}: {}", reply.text());
    }
    assert!(!api.gateway.process().stderr().contains("hunter2"));

    let open = Api::start(Gateway::setup().flag("--api-writable --api-secrets")).await;
    let (_, made) = open.send("POST", &secrets, &secret()).await;
    assert_eq!(made["data"]["password"], "aHVudGVyMg==", "{made}");
}

#[tokio::test]
async fn a_namespace_goes_with_what_was_written_into_it() {
    let api = Api::writable().await;
    let routes = format!("{GROUP}/namespaces/shop/httproutes");
    assert_eq!(api.send("POST", &routes, &route("cart", "shop.test")).await.0, 201);
    // It is there because something is in it.
    let (status, shop) = api.get("/api/v1/namespaces/shop").await;
    assert_eq!(status, 200, "{shop}");
    assert_eq!(shop["metadata"]["labels"]["kubernetes.io/metadata.name"], "shop");
    let namespace = json!({ "metadata": { "name": "shop", "labels": { "a": "b" } } });
    assert_eq!(api.send("POST", "/api/v1/namespaces", &namespace).await.0, 201);
    assert_eq!(api.send("POST", "/api/v1/namespaces", &namespace).await.0, 409);
    assert_eq!(api.send("DELETE", "/api/v1/namespaces/shop", &Value::Null).await.0, 200);
    assert_eq!(api.get("/api/v1/namespaces/shop").await.0, 404);
    assert_eq!(api.get(&format!("{routes}/cart")).await.0, 404);
    let own = format!("/api/v1/namespaces/{NAMESPACE}");
    assert_eq!(api.send("DELETE", &own, &Value::Null).await.0, 403);
}

/// The control socket answers whoever may connect to it, without a token and without TCP.
#[tokio::test]
async fn the_control_socket_serves_it_too() {
    let gateway = Gateway::setup().flag("--api-writable").start().await;
    let ask = async |head: &str, body: &str| {
        let stream = UnixStream::connect(gateway.setup_ref().control_socket()).await.unwrap();
        let mut wire = Wire::over(stream);
        let length = body.len();
        wire.send(format!("{head} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"))
            .await;
        wire.reply().await
    };
    let reply = ask(&format!("GET {GROUP}/gateways"), "").await;
    assert!(reply.status() == 200 && reply.text().contains("\"GatewayList\""), "{}", reply.text());
    let made = ask(&format!("POST {}", routes()), &route("cart", "shop.test").to_string()).await;
    assert_eq!(made.status(), 201, "{}", made.text());
}

#[tokio::test]
async fn status_shows_what_is_served_and_what_is_wrong() {
    let shop = Origin::replying("shop").await;
    let broken = http_route("blog", &["blog.test"], &rule_to("/", "gone"));
    let setup = Gateway::setup()
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .file("routes/blog.yaml", &broken);
    let gateway = setup.start().await;
    let setup = gateway.setup_ref();
    let table = output(setup.command("status")).await;
    assert!(table.status.success(), "{table:?}");
    let text = String::from_utf8(table.stdout).unwrap();
    for part in [
        "GATEWAYCLASS  STATUS  CONTROLLER",
        "NAMESPACE             GATEWAY  STATUS  CLASS  ADDRESS  PROGRAMMED  AGE\n",
        "envoy-gateway-system  eg       ok      eg     ",
        "envoy-gateway-system  blog       BackendNotFound  ",
        "  shop.test",
        "! HTTPRoute envoy-gateway-system/blog, on eg: ResolvedRefs is False, BackendNotFound:",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let yaml = output(setup.command("status httproute shop -o yaml")).await;
    let text = String::from_utf8(yaml.stdout).unwrap();
    assert!(
        text.starts_with("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n"),
        "{text}"
    );
    assert!(text.contains("    - lastTransitionTime: \"20"), "{text}");
    let json = output(setup.command("status gtw -o json")).await;
    let list: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(list["items"][0]["status"]["listeners"][0]["attachedRoutes"], 2, "{list}");
    for (arguments, word) in
        [("status httproute nobody", "no such object"), ("status pods", "`pods`")]
    {
        let output = output(setup.command(arguments)).await;
        assert_eq!(output.status.code(), Some(1), "{arguments}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(word), "{output:?}");
    }
}

/// Changes of files that were written over the API are loaded once, not again by the watch.
#[tokio::test]
async fn the_watch_of_files_knows_what_was_written_here() {
    let api = Api::start(Gateway::setup().watching().flag("--api-writable")).await;
    let loads = || {
        let process = api.gateway.process();
        let log = process.stdout().join("\n") + &process.stderr();
        (
            log.matches("reloading for a change over the API").count(),
            log.matches("reloading changed files").count(),
        )
    };
    assert_eq!(api.send("POST", &routes(), &route("cart", "shop.test")).await.0, 201);
    // That nothing happens can only be seen by waiting: the watch tells 300 ms after a change.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(loads(), (1, 0));
    api.gateway.write("routes/more.yaml", &http_route("more", &["more.test"], "- {}"));
    let more = format!("{}/more", routes());
    soon("the file", async { while api.get(&more).await.0 != 200 {} }).await;
    assert_eq!(loads(), (1, 1));
}

/// Over TLS the certificate is that of this start, which the kubeconfig names.
#[tokio::test]
async fn what_begins_as_tls_is_tls() {
    let api = Api::start(Gateway::setup()).await;
    let ca = api.gateway.setup_ref().control_socket().with_file_name("api-ca.pem");
    assert!(fs::read_to_string(ca).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    // Not signed by the authority of the stories, so that client must not take it.
    let refused = Tls::of("localhost").connect(api.address).await;
    assert!(refused.unwrap_err().to_string().contains("certificate"), "an unknown issuer");
}
