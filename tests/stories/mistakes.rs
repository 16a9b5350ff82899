//! Mistakes that are saved into the files of a running gateway: nothing that serves stops serving, and
//! the operator is told the cause.

use std::fs;
use std::path::Path;

use crate::operator::{operator, stderr, stdout};
use crate::reload::Load;
use crate::support::{
    ENVOY_GATEWAY, GATEWAY, GATEWAY_CLASS, Gateway, Origin, Wire, backend, free_address,
    http_route, rule_to, serve_all, until,
};

const CLASS: &str = "common/gatewayclass.yaml";
const EG: &str = "common/gateway.yaml";
const BLOG: &str = "routes/blog.yaml";
const DOCUMENT: &str = "standalone.yaml";

/// What somebody does to a file.
enum Edit {
    /// Writes this in the place of that.
    Replace(&'static str, &'static str),
    Append(&'static str),
    Write(&'static str),
    CommentOut,
    Remove,
    Rename(&'static str),
}
use Edit::{Append, CommentOut, Remove, Rename, Replace, Write};

/// (mistake, file, edit, what the first line says of it)
const MISTAKES: &[(&str, &str, Edit, &str)] = &[
    // The class.
    (
        "class emptied",
        CLASS,
        Write(""),
        "gatewayclass.yaml holds no object any more; GatewayClass eg was in it",
    ),
    ("class commented out", CLASS, CommentOut, "gatewayclass.yaml holds no object any more"),
    ("class removed", CLASS, Remove, "GatewayClass eg is gone; it was in "),
    (
        "class renamed",
        CLASS,
        Replace("name: eg", "name: egg"),
        "GatewayClass eg is gone; it was in ",
    ),
    (
        "typo in the controller",
        CLASS,
        Replace("gatewayclass-controller", "gatewayclass-controler"),
        "not served here: GatewayClass `eg` belongs to controller",
    ),
    (
        "parameters that are not there",
        CLASS,
        Append(
            "  parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: none, namespace: x}\n",
        ),
        "there is no EnvoyProxy `x/none`",
    ),
    // The Gateway.
    (
        "typo in the class's name",
        EG,
        Replace("gatewayClassName: eg", "gatewayClassName: egg"),
        "gateway.yaml:7:21: Gateway envoy-gateway-system/eg: spec.gatewayClassName: there is no GatewayClass `egg`",
    ),
    (
        "Gateway emptied",
        EG,
        Write(""),
        "gateway.yaml holds no object any more; Gateway envoy-gateway-system/eg was in it",
    ),
    ("Gateway commented out", EG, CommentOut, "gateway.yaml holds no object any more"),
    (
        "Gateway half written",
        EG,
        Write("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n"),
        "gateway.yaml:1:1: Gateway default/?: `metadata` is missing",
    ),
    ("Gateway removed", EG, Remove, "Gateway envoy-gateway-system/eg is gone; it was in "),
    (
        "Gateway's file renamed",
        EG,
        Rename("common/gateway.yaml.bak"),
        "Gateway envoy-gateway-system/eg is gone; it was in ",
    ),
    (
        "Gateway of another name",
        EG,
        Replace("name: eg\n  namespace", "name: eg2\n  namespace"),
        "Gateway envoy-gateway-system/eg is gone; it was in ",
    ),
    (
        "Gateway of another namespace",
        EG,
        Replace("namespace: envoy-gateway-system", "namespace: default"),
        "Gateway envoy-gateway-system/eg is gone; it was in ",
    ),
    (
        "HTTPS on the port of HTTP",
        EG,
        Replace("port: 8443", "port: 8080"),
        "protocol HTTP cannot share port 8080 with HTTPS of listener `https`",
    ),
    (
        "unknown protocol",
        EG,
        Replace("protocol: HTTPS", "protocol: HTTPSS"),
        "gateway.yaml:13:17: Gateway envoy-gateway-system/eg: spec.listeners[1].protocol: `HTTPSS` is not a protocol",
    ),
    (
        "two listeners of one name",
        EG,
        Replace("name: https", "name: http"),
        "gateway.yaml:12:7: Gateway envoy-gateway-system/eg: spec.listeners[1]: Listener name must be unique",
    ),
    ("port 0", EG, Replace("port: 8443", "port: 0"), "spec.listeners[1].port: 0 is out of range"),
    (
        "port of five digits too many",
        EG,
        Replace("port: 8443", "port: 844300"),
        "gateway.yaml:14:13: Gateway envoy-gateway-system/eg: spec.listeners[1].port",
    ),
    ("port in quotes", EG, Replace("port: 8443", "port: \"8443\""), "spec.listeners[1].port"),
    (
        "listener taken out",
        EG,
        Replace("    - name: http\n      protocol: HTTP\n      port: 8080\n", ""),
        "port 8080 would be closed, of listener envoy-gateway-system/eg/http",
    ),
    (
        "listener for another host",
        EG,
        Replace("port: 8443", "port: 8443\n      hostname: else.test"),
        "listener envoy-gateway-system/eg/https would be gone from port 8443",
    ),
    (
        "hostname that is a URL",
        EG,
        Replace("port: 8443", "port: 8443\n      hostname: https://shop.test"),
        "spec.listeners[1].hostname: `https://shop.test` is not a hostname",
    ),
    (
        "certificate of another kind",
        EG,
        Replace("kind: Secret", "kind: Secert"),
        "`Secert` holds no certificates; refer to a Secret",
    ),
    (
        "typo in the mode of TLS",
        EG,
        Replace("mode: Terminate", "mode: Terminat"),
        "spec.listeners[1].tls.mode: `Terminat` is not supported",
    ),
    (
        "routes of nobody",
        EG,
        Replace("port: 8080", "port: 8080\n      allowedRoutes: {namespaces: {from: Non}}"),
        "spec.listeners[0].allowedRoutes.namespaces.from",
    ),
    // What is YAML.
    (
        "a tab",
        BLOG,
        Replace("  name: blog", "\tname: blog"),
        "blog.yaml:4:2: a tab in the indentation; use spaces",
    ),
    ("wrong indent", BLOG, Replace("  endpoints:", " endpoints:\n   x:"), "blog.yaml:"),
    (
        "a brace that is not closed",
        BLOG,
        Replace("kind: Backend\nmetadata", "kind: {Backend\nmetadata"),
        "blog.yaml:",
    ),
    (
        "a file cut off",
        BLOG,
        Write("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRo"),
        "blog.yaml:2:7: ",
    ),
    // What decodes.
    (
        "typo in a field",
        BLOG,
        Replace("      backendRefs:", "      backendRef:"),
        "unknown field `backendRef`; did you mean `backendRefs`?",
    ),
    (
        "typo in metadata",
        BLOG,
        Replace(
            "kind: HTTPRoute\nmetadata:\n",
            "kind: HTTPRoute\nmetadata:\n  lables: {tier: web}\n",
        ),
        "unknown field `lables`; did you mean `labels`?",
    ),
    (
        "policy that is not supported yet",
        BLOG,
        Append(
            "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: SecurityPolicy\nmetadata: {name: p, namespace: envoy-gateway-system}\nspec: {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: blog}], jwt: {providers: []}}\n",
        ),
        "SecurityPolicy envoy-gateway-system/p: spec.jwt: not supported yet",
    ),
    (
        "unknown kind",
        BLOG,
        Replace("kind: HTTPRoute", "kind: HTTPRout"),
        "did you mean `HTTPRoute`?",
    ),
    (
        "wrong version",
        BLOG,
        Replace("gateway.networking.k8s.io/v1\n", "gateway.networking.k8s.io/v2\n"),
        "HTTPRoute has no version `gateway.networking.k8s.io/v2`",
    ),
    (
        "variable that is not set",
        BLOG,
        Replace("blog.test", "${NOT_SET_ANYWHERE}"),
        "`NOT_SET_ANYWHERE` is not set",
    ),
    ("text for a list", BLOG, Replace("    - name: eg\n", "    eg\n"), "spec.parentRefs"),
    // What is valid.
    (
        "typo in an enum",
        BLOG,
        Replace("type: PathPrefix", "type: PathPrefx"),
        "matches[0].path.type: `PathPrefx` is not supported; did you mean `PathPrefix`?",
    ),
    (
        "typo in a method",
        BLOG,
        Replace("        - path:\n", "        - method: GETT\n          path:\n"),
        "spec.rules[0].matches[0].method: `GETT`",
    ),
    (
        "typo in a filter",
        BLOG,
        Replace(
            "      backendRefs:",
            "      filters: [{type: RequestHeaderModifer, requestHeaderModifier: {set: [{name: a, value: b}]}}]\n      backendRefs:",
        ),
        "spec.rules[0].filters[0].type: `RequestHeaderModifer`",
    ),
    (
        "broken regular expression",
        BLOG,
        Replace(
            "type: PathPrefix\n            value: /",
            "type: RegularExpression\n            value: \"/[\"",
        ),
        "spec.rules[0].matches[0].path.value: ",
    ),
    (
        "path without a slash",
        BLOG,
        Replace("value: /", "value: blog"),
        "spec.rules[0].matches[0].path.value",
    ),
    (
        "two filters that do not go together",
        BLOG,
        Replace(
            "      backendRefs:",
            "      filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}, {type: URLRewrite, urlRewrite: {hostname: a.test}}]\n      backendRefs:",
        ),
        "spec.rules[0]",
    ),
    (
        "a time without a unit",
        BLOG,
        Replace("      backendRefs:", "      timeouts: {request: 30}\n      backendRefs:"),
        "spec.rules[0].timeouts.request",
    ),
    (
        "a time that is longer than the whole",
        BLOG,
        Replace(
            "      backendRefs:",
            "      timeouts: {request: 1s, backendRequest: 2s}\n      backendRefs:",
        ),
        "spec.rules[0].timeouts",
    ),
    (
        "weight 0 everywhere",
        BLOG,
        Replace("          name: blog", "          name: blog\n          weight: 0"),
        "every backend of this rule has weight 0: its requests get 500",
    ),
    (
        "weight below 0",
        BLOG,
        Replace("          name: blog", "          name: blog\n          weight: -1"),
        "weight",
    ),
    (
        "hostname with a port",
        BLOG,
        Replace("\"blog.test\"", "\"blog.test:443\""),
        "spec.hostnames[0]: `blog.test:443` is not a hostname",
    ),
    (
        "hostname with a wildcard in it",
        BLOG,
        Replace("\"blog.test\"", "\"www.*\""),
        "spec.hostnames[0]: `www.*` is not a hostname",
    ),
    (
        "hostname with an underscore",
        BLOG,
        Replace("\"blog.test\"", "\"my_blog.test\""),
        "spec.hostnames[0]: `my_blog.test` is not a hostname",
    ),
    // What refers to something.
    (
        "backend that is not there",
        BLOG,
        Replace("          name: blog", "          name: blogg"),
        "there is no Backend `envoy-gateway-system/blogg`",
    ),
    (
        "backend without a group",
        BLOG,
        Replace("group: gateway.envoyproxy.io", "weight: 1"),
        "add `group: gateway.envoyproxy.io`",
    ),
    (
        "backend renamed",
        BLOG,
        Replace(
            "name: blog\n  namespace: envoy-gateway-system\nspec:\n  endpoints",
            "name: bolg\n  namespace: envoy-gateway-system\nspec:\n  endpoints",
        ),
        "Backend envoy-gateway-system/blog is gone; it was in ",
    ),
    (
        "address that is none",
        BLOG,
        Replace("address: 127.0.0.1", "address: 127.0.0"),
        "Backend envoy-gateway-system/blog: spec.endpoints[0].ip.address",
    ),
    (
        "name for an address",
        BLOG,
        Replace("address: 127.0.0.1", "address: localhost"),
        "Backend envoy-gateway-system/blog: spec.endpoints[0].ip.address",
    ),
    (
        "route of another namespace",
        BLOG,
        Replace(
            "kind: HTTPRoute\nmetadata:\n  name: blog\n  namespace: envoy-gateway-system",
            "kind: HTTPRoute\nmetadata:\n  name: blog\n  namespace: default",
        ),
        "there is no Gateway `default/eg`",
    ),
    (
        "Gateway that is not there",
        BLOG,
        Replace("    - name: eg\n", "    - name: ge\n"),
        "there is no Gateway `envoy-gateway-system/ge`",
    ),
    (
        "listener that is not there",
        BLOG,
        Replace("    - name: eg\n", "    - name: eg\n      sectionName: htps\n"),
        "has no listener `htps`; it has `http` on port 8080 and `https` on port 8443",
    ),
    (
        "route without parents",
        BLOG,
        Replace("  parentRefs:\n    - name: eg\n", ""),
        "HTTPRoute envoy-gateway-system/blog would be on no listener any more",
    ),
    (
        "an object twice",
        "routes/copy.yaml",
        Write(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: shop, namespace: envoy-gateway-system}\nspec: {parentRefs: [{name: eg}]}\n",
        ),
        "duplicate of the object at ",
    ),
    (
        "TLS to a backend that nobody can check",
        "routes/tls.yaml",
        Write(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {name: p, namespace: envoy-gateway-system}\nspec: {targetRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: blog}], validation: {hostname: blog.test, caCertificateRefs: [{group: \"\", kind: ConfigMap, name: none}]}}\n",
        ),
        "BackendTLSPolicy envoy-gateway-system/p: spec.validation.caCertificateRefs[0]",
    ),
    // Files and directories.
    ("routes emptied", BLOG, Write(""), "blog.yaml holds no object any more; 2 objects were in it"),
    ("routes commented out", BLOG, CommentOut, "blog.yaml holds no object any more"),
    (
        "routes directory renamed",
        "routes",
        Rename("routes.old"),
        "routes is not there any more; 4 objects were in it",
    ),
    (
        "link that leads nowhere",
        "routes/link.yaml",
        Rename("nowhere"),
        "link.yaml: the target of this link does not exist",
    ),
    (
        "document emptied",
        DOCUMENT,
        Write(""),
        "standalone.yaml:1:1: EnvoyGateway: the file is empty",
    ),
    ("document removed", DOCUMENT, Remove, "standalone.yaml: cannot be read"),
    (
        "path that is not there",
        DOCUMENT,
        Replace("envoy-gateway/routes", "envoy-gateway/rotues"),
        "rotues is not there",
    ),
    (
        "path taken out",
        DOCUMENT,
        Replace("          - /etc/envoy-gateway/routes\n", ""),
        "would have no route left; it has 2 routes",
    ),
    (
        "Backends turned off",
        DOCUMENT,
        Replace("enableBackend: true", "enableBackend: false"),
        "Backend is turned off",
    ),
    (
        "another controller",
        DOCUMENT,
        Append("gateway: {controllerName: example.org/x}\n"),
        "not served here: GatewayClass `eg` belongs to controller",
    ),
];

impl Edit {
    fn apply(&self, gateway: &Gateway, file: &str, before: &str) {
        let path = gateway.path(file);
        let write = |text: &str| fs::write(&path, text).unwrap();
        match self {
            Replace(from, to) => {
                assert!(before.contains(from), "{from:?} in {before}");
                write(&before.replacen(from, to, 1));
            }
            Append(text) => write(&format!("{before}{text}")),
            Write(text) => write(text),
            CommentOut => {
                write(&before.lines().map(|line| format!("# {line}\n")).collect::<String>());
            }
            Remove => fs::remove_file(&path).unwrap(),
            Rename("nowhere") => std::os::unix::fs::symlink("/nowhere/at/all", &path).unwrap(),
            Rename(to) => fs::rename(&path, gateway.path(to)).unwrap(),
        }
    }

    fn undo(&self, gateway: &Gateway, file: &str, before: Option<&str>) {
        let path = gateway.path(file);
        match (self, before) {
            (Rename(to), _) if *to != "nowhere" => fs::rename(gateway.path(to), &path).unwrap(),
            (_, Some(before)) => fs::write(&path, before).unwrap(),
            (_, None) => fs::remove_file(&path).unwrap(),
        }
    }
}

/// Files with a listener of each protocol and two routes, `shop` and `blog`.
async fn served(shop: &Origin, blog: &Origin) -> Gateway {
    Gateway::setup()
        .file(DOCUMENT, ENVOY_GATEWAY)
        .file(CLASS, GATEWAY_CLASS)
        .file(EG, GATEWAY)
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .file(BLOG, serve_all("blog", "blog.test", &[blog.address]).trim_start_matches("---\n"))
        .start()
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saved_mistake_takes_nothing_away() {
    let (shop, blog) = (Origin::replying("shop").await, Origin::replying("blog").await);
    let gateway = served(&shop, &blog).await;
    let load = Load::start(&gateway);
    load.goes_on().await;
    let mut wrong = Vec::new();
    for (mistake, file, edit, want) in MISTAKES {
        let before = fs::read_to_string(gateway.path(file)).ok();
        edit.apply(&gateway, file, before.as_deref().unwrap_or_default());
        let reloaded = operator(gateway.setup_ref(), "reload", &["--wait"]).await;
        let told = stdout(&reloaded);
        let said = stderr(&reloaded);
        let mut fail = |what: &str| wrong.push(format!("{mistake}: {what}:\n{told}{said}"));
        if reloaded.status.code() != Some(1) {
            fail("exit code");
        }
        let first = told.lines().next().unwrap_or_default();
        if !first.contains(want) {
            fail(&format!("the first line has no `{want}`"));
        }
        let still = "still serving the previous configuration, generation 1";
        if !said.contains(still) {
            fail(&format!("no `{still}`"));
        }
        for (url, text) in [
            ("http://shop.test/", "shop"),
            ("https://shop.test/", "shop"),
            ("http://blog.test/", "blog"),
            ("https://blog.test/", "blog"),
        ] {
            assert_eq!(gateway.get(url).await.text(), text, "{mistake}");
        }
        edit.undo(&gateway, file, before.as_deref());
    }
    let reloaded = operator(gateway.setup_ref(), "reload", &["--wait"]).await;
    assert!(reloaded.status.success(), "every mistake is undone: {reloaded:?}");
    load.ends_unharmed().await;
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), MISTAKES.len(), wrong.join("\n"));
}

/// A certificate that a Secret does not hold comes from certbot: the newest lineage for the name.
#[tokio::test]
async fn a_secret_that_is_not_written_is_no_mistake() {
    let (shop, blog) = (Origin::replying("shop").await, Origin::replying("blog").await);
    let gateway = served(&shop, &blog).await;
    gateway.write(EG, &GATEWAY.replace("eih-tls-cert", "another"));
    let reloaded = operator(gateway.setup_ref(), "reload", &["--wait"]).await;
    assert!(reloaded.status.success(), "{reloaded:?}");
    assert_eq!(gateway.get("https://shop.test/").await.text(), "shop");
}

/// What is told of one mistake that a hundred objects feel is the mistake.
#[tokio::test]
async fn consequences_are_counted_and_the_cause_is_told() {
    let shop = Origin::replying("shop").await;
    let mut setup = Gateway::setup().file("routes/backend.yaml", &backend("shop", &[shop.address]));
    for number in 0..100 {
        let name = format!("route-{number:03}");
        let hosts = [&*format!("{name}.example.test")];
        let route = http_route(&name, &hosts, &rule_to("/", "shop"));
        setup = setup.file(&format!("routes/{name}.yaml"), &route);
    }
    let gateway = setup.start().await;
    let file = fs::read_to_string(gateway.path("routes/backend.yaml")).unwrap();
    // (file, its text, lines before the count)
    let table = [
        (
            "routes/backend.yaml",
            file.replace("address: 127.0.0.1", "address: nowhere"),
            "routes/backend.yaml:",
        ),
        (EG, GATEWAY.replace("protocol: HTTP\n", "protocol: HTPP\n"), "common/gateway.yaml:"),
        ("routes/backend.yaml", String::new(), "routes/backend.yaml holds no object any more"),
        (
            EG,
            GATEWAY.replace("name: eg\n", "name: ge\n"),
            "Gateway envoy-gateway-system/eg is gone",
        ),
    ];
    for (name, text, want) in table {
        let before = fs::read_to_string(gateway.path(name)).unwrap();
        gateway.write(name, &text);
        let reloaded = operator(gateway.setup_ref(), "reload", &["--wait"]).await;
        let told = stdout(&reloaded);
        assert_eq!(reloaded.status.code(), Some(1), "{reloaded:?}");
        assert!(told.lines().next().unwrap().contains(want), "{want} first: {told}");
        assert!(told.contains("100 faults follow from that") || name == EG, "{told}");
        assert!(told.lines().count() <= 8, "{told}");
        assert!(!told.contains("route-042"), "{told}");
        assert_eq!(gateway.get("http://route-042.example.test/").await.text(), "shop");
        gateway.write(name, &before);
    }
}

/// Somebody lives with a fault: it is none of the next change's.
#[tokio::test]
async fn faults_that_were_there_at_the_start_do_not_block_a_reload() {
    let shop = Origin::replying("shop").await;
    let two = format!("{}{}", rule_to("/old", "lost"), rule_to("/", "shop"));
    let lost = http_route("lost", &["lost.example.test"], &two);
    let route = serve_all("shop", "shop.test", &[shop.address]);
    let gateway = Gateway::setup()
        .file("routes/lost.yaml", &lost)
        .file("routes/shop.yaml", &route)
        .start()
        .await;
    let loads = async |what: &str| {
        let reloaded = operator(gateway.setup_ref(), "reload", &["--wait"]).await;
        assert!(reloaded.status.success(), "{what}: {reloaded:?}");
    };
    gateway.write("routes/shop.yaml", &route.replace("shop.test", "blog.test"));
    loads("another file").await;
    assert_eq!(gateway.get("http://blog.test/").await.text(), "shop");
    gateway.write("routes/lost.yaml", &format!("# a comment\n{lost}"));
    loads("its line is another").await;
    let three = format!("{}{two}", rule_to("/new", "shop"));
    gateway.write("routes/lost.yaml", &http_route("lost", &["lost.example.test"], &three));
    loads("its rule has another number").await;
    fs::rename(gateway.path("routes/lost.yaml"), gateway.path("routes/found.yaml")).unwrap();
    loads("its file has another name").await;

    // The same once more is a new one.
    let four = format!("{}{three}", rule_to("/older", "lost"));
    gateway.write("routes/found.yaml", &http_route("lost", &["lost.example.test"], &four));
    let reloaded = operator(gateway.setup_ref(), "reload", &["--wait"]).await;
    assert_eq!(reloaded.status.code(), Some(1), "{reloaded:?}");
}

/// One route is somebody's to remove; the last one of a listener is not removed by mistake.
#[tokio::test]
async fn what_is_gone_is_refused_until_it_is_meant() {
    let (shop, blog) = (Origin::replying("shop").await, Origin::replying("blog").await);
    let gateway = served(&shop, &blog).await;
    let setup = gateway.setup_ref();
    gateway.remove(BLOG);
    let reloaded = operator(setup, "reload", &["--wait"]).await;
    assert!(reloaded.status.success(), "one of two: {reloaded:?}");
    assert_eq!(gateway.get("http://blog.test/").await.status(), 404);

    gateway.remove("routes/shop.yaml");
    let reloaded = operator(setup, "reload", &["--wait"]).await;
    assert_eq!(reloaded.status.code(), Some(1), "{reloaded:?}");
    let told = stdout(&reloaded);
    assert!(told.contains("eg/http would have no route left; it has 1 route"), "{told}");
    let hint = "edge-gateway reload --wait --allow-removal";
    assert!(stderr(&reloaded).contains(hint), "{reloaded:?}");
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    gateway.reload_with_removals().await;
    assert_eq!(gateway.get("http://shop.test/").await.status(), 404);

    // A port, and the objects that refer to what is gone with it.
    gateway.write("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]));
    assert!(operator(setup, "reload", &["--wait"]).await.status.success());
    gateway.remove(EG);
    let checked = operator(setup, "check", &files(&gateway)).await;
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let told = stdout(&checked);
    let would = "The running gateway would refuse a reload, and go on serving generation 4";
    assert!(told.contains(would), "{told}");
    assert_eq!(operator(setup, "reload", &["--wait"]).await.status.code(), Some(1));
    assert_eq!(gateway.get("https://shop.test/").await.text(), "shop");
    gateway.reload_with_removals().await;
    let log = gateway.process().stderr();
    assert!(log.contains("serving 0 routes on 0 listeners"), "{log}");
}

fn files(gateway: &Gateway) -> Vec<&'static str> {
    // They live as long as the test.
    gateway.setup_ref().files().into_iter().map(|flag| &*flag.leak()).collect()
}

/// Whoever asks while files are refused is told, and by all ways.
#[tokio::test]
async fn a_refusal_is_told_until_it_is_mended() {
    let (admin, metrics) = (free_address(), free_address());
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::setup()
        .admin_at(admin)
        .metrics_at(metrics)
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let get = async |at, target: &str| {
        let mut wire = Wire::once_there(at).await;
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"))
            .await;
        wire.reply().await.text()
    };
    let refused = "edge_gateway_config_files_refused 1\n";
    assert!(!get(metrics, "/metrics").await.contains(refused));
    let class = GATEWAY_CLASS.replace("name: eg", "name: egg");
    gateway.write(CLASS, &class);
    let ready = gateway.reload().await;
    let line = ready.value("STATUS").unwrap_or_default().to_owned();
    let cause = "GatewayClass eg is gone; it was in ";
    assert!(line.contains("last reload failed: ") && line.contains(cause), "{line}");
    assert!(get(metrics, "/metrics").await.contains(refused));
    let status = operator(gateway.setup_ref(), "status", &[]).await;
    let told = stdout(&status).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("! the files are refused; still serving generation 1"), "{told}");
    assert!(told.contains("GatewayClass eg is gone"), "{told}");
    let answer: serde_json::Value = serde_json::from_str(&get(admin, "/status").await).unwrap();
    assert_eq!(answer["reload_policy"], "strict", "{answer}");
    assert!(answer["refusal"]["lines"][0].as_str().unwrap().starts_with(cause), "{answer}");
    assert_eq!(answer["refusal"]["is_removal"], true, "{answer}");
    let reloads: serde_json::Value = serde_json::from_str(&get(admin, "/reloads").await).unwrap();
    assert_eq!(reloads["reloads"][0]["loaded"], false, "{reloads}");
    assert_eq!(reloads["reloads"][0]["refusal"]["lines"], answer["refusal"]["lines"]);
    let log = || gateway.process().stderr();
    until("the log tells", || {
        log().contains("reload failed; still serving the previous configuration")
    })
    .await;

    gateway.write(CLASS, GATEWAY_CLASS);
    gateway.reload().await;
    assert!(!get(metrics, "/metrics").await.contains(refused));
    let status = operator(gateway.setup_ref(), "status", &[]).await;
    assert!(!stdout(&status).contains("refused"), "{status:?}");
}

/// Many independent owners: the object at fault is out of service, and nobody else's.
#[tokio::test]
async fn a_partial_policy_loses_an_object_and_never_a_listener() {
    let (shop, blog) = (Origin::replying("shop").await, Origin::replying("blog").await);
    let gateway = Gateway::setup()
        .flag("--reload-policy partial")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .file(BLOG, &serve_all("blog", "blog.test", &[blog.address]))
        .start()
        .await;
    let setup = gateway.setup_ref();
    let good = fs::read_to_string(gateway.path(BLOG)).unwrap();
    gateway.write(BLOG, &good.replace("type: PathPrefix", "type: PathPrefx"));
    let reloaded = operator(setup, "reload", &["--wait"]).await;
    assert!(reloaded.status.success(), "{reloaded:?}");
    assert_ne!(gateway.get("http://blog.test/").await.status(), 200);
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    gateway.write(BLOG, &good);
    assert!(operator(setup, "reload", &["--wait"]).await.status.success());

    for (mistake, file, edit, want) in [
        (
            "a class that is gone",
            EG,
            Replace("gatewayClassName: eg", "gatewayClassName: egg"),
            "there is no GatewayClass `egg`",
        ),
        (
            "an unknown protocol",
            EG,
            Replace("protocol: HTTPS", "protocol: HTTPSS"),
            "`HTTPSS` is not a protocol",
        ),
        ("an empty file", EG, Write(""), "gateway.yaml holds no object any more"),
        ("empty routes", BLOG, Write(""), "blog.yaml holds no object any more"),
        ("no directory", "routes", Rename("routes.old"), "routes is not there any more"),
        (
            "a listener taken out",
            EG,
            Replace("    - name: http\n      protocol: HTTP\n      port: 8080\n", ""),
            "port 8080 would be closed",
        ),
    ] {
        let before = fs::read_to_string(gateway.path(file)).ok();
        edit.apply(&gateway, file, before.as_deref().unwrap_or_default());
        let reloaded = operator(setup, "reload", &["--wait"]).await;
        assert_eq!(reloaded.status.code(), Some(1), "{mistake}: {reloaded:?}");
        let told = stdout(&reloaded);
        assert!(told.lines().next().unwrap().contains(want), "{mistake}: {told}");
        for (url, text) in [("http://shop.test/", "shop"), ("https://blog.test/", "blog")] {
            assert_eq!(gateway.get(url).await.text(), text, "{mistake}");
        }
        edit.undo(&gateway, file, before.as_deref());
    }
}

/// The watch needs no reload to be asked for, and so no mistake may pass by it.
#[tokio::test]
async fn files_that_vanish_under_the_watch_close_nothing() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::setup()
        .watching()
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let refusals = || gateway.process().stderr().matches("reload failed; still serving").count();
    fs::rename(gateway.path("common"), gateway.path("common.old")).unwrap();
    until("the directory is missed", || refusals() > 0).await;
    assert_eq!(gateway.get("https://shop.test/").await.text(), "shop");
    fs::rename(gateway.path("common.old"), gateway.path("common")).unwrap();
    let log = || gateway.process().stderr();
    until("it is found again", || log().matches("serving 1 route on 2 listeners").count() > 1)
        .await;
    // As a shell does before a slow command writes.
    let before = refusals();
    fs::File::create(gateway.path(EG)).unwrap();
    until("the file is empty", || refusals() > before).await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    assert!(Path::new(&gateway.path(EG)).exists());
}
