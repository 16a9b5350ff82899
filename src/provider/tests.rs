//! Tests of whole loads: the deployment, and the diagnostics of faulty files.

use std::fs;
use std::path::{Path, PathBuf};

use crate::api::Object;
use crate::config::{DEFAULT_CONTROLLER, Settings, field_path};

use super::*;

/// The environment of all tests in this file.
fn environment(name: &str) -> Option<String> {
    match name {
        "DOMAIN" => Some("shop.example".into()),
        "PORT" => Some("8443".into()),
        "PASSWORD" => Some("hunter2".into()),
        "PIN" => Some("31337".into()),
        _ => None,
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Reads `name` of the deployment, with the fixture as its `/etc/envoy-gateway`.
fn deployment(name: &str) -> Loaded {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let fixture = repository("tests/fixtures/deployment");
    std::os::unix::fs::symlink(&fixture, root.path().join("etc/envoy-gateway")).unwrap();
    let (settings, warnings) =
        Settings::read(&fixture.join(name), Some(root.path()), &environment).unwrap();
    assert_eq!(warnings, []);
    assert!(settings.enable_backend);
    assert_eq!(settings.controller_name, DEFAULT_CONTROLLER);
    load(&settings, &environment)
}

fn keys(loaded: &Loaded) -> Vec<String> {
    loaded.objects.iter().map(|checked| checked.object.key().to_string()).collect()
}

#[test]
fn the_deployment_loads_as_it_is() {
    let common = [
        "GatewayClass eg",
        "Backend envoy-gateway-system/billing",
        "Backend envoy-gateway-system/keycloak",
        "Backend envoy-gateway-system/reports",
        "HTTPRoute envoy-gateway-system/billing",
        "HTTPRoute envoy-gateway-system/https-redirect",
        "HTTPRoute envoy-gateway-system/keycloak",
        "HTTPRoute envoy-gateway-system/reports",
        "Gateway envoy-gateway-system/eg",
    ];
    let prod = deployment("standalone-prod.yaml");
    assert_eq!(prod.diagnostics([]), []);
    assert_eq!(keys(&prod), common);

    let dev = deployment("standalone-dev.yaml");
    assert_eq!(dev.diagnostics([]), []);
    let echo = ["Backend envoy-gateway-system/echo", "HTTPRoute envoy-gateway-system/echo"];
    assert_eq!(keys(&dev), [&common[..], &echo].concat());
}

#[test]
fn variables_are_replaced_and_quoted_numbers_stay_text() {
    let loaded = deployment("standalone-prod.yaml");
    let Object::HttpRoute(billing) = &loaded.objects[4].object else { panic!("a route") };
    let filter = &billing.spec.rules()[0].filters[0];
    let set = &filter.request_header_modifier.as_ref().unwrap().set;
    let values: Vec<&str> = set.iter().map(|header| header.value.as_str()).collect();
    assert_eq!(values, ["https", "shop.example", "443"]);
}

#[test]
fn a_field_of_a_loaded_object_is_found_in_its_file() {
    let loaded = deployment("standalone-dev.yaml");
    let field = field_path!(spec.rules[0].backendRefs[0].name);
    let place = loaded.place(loaded.objects.len() - 1, &field).to_string();
    assert!(place.ends_with("/etc/envoy-gateway/dev/routes/echo.yaml:29:17"), "{place}");
}

#[test]
fn an_unquoted_variable_may_be_a_number() {
    let text = "\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: a}
spec:
  endpoints:
    - fqdn:
        hostname: a.local
        port: ${PORT}
";
    let loaded = parse_bytes(Path::new("a.yaml"), text.as_bytes(), &environment);
    assert_eq!(loaded.diagnostics([]), []);
    let Object::Backend(backend) = &loaded.objects[0].object else { panic!("a Backend") };
    assert_eq!(backend.spec.endpoints[0].fqdn.as_ref().unwrap().port, 8443);
}

/// Each folder of `tests/config_errors` has files and, in `out.txt`, their diagnostics. `UPDATE=1`
/// records `out.txt` anew.
#[test]
fn faults_are_told_as_recorded() {
    let mut wrong = Vec::new();
    let mut folders: Vec<PathBuf> = fs::read_dir(repository("tests/config_errors"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    assert!(!folders.is_empty());
    for folder in folders {
        let mut files: Vec<PathBuf> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension != "txt"));
        files.sort();
        let loaded = load(&Settings::of_paths(files), &environment);
        let said = said(&loaded, &folder);
        let recorded = folder.join("out.txt");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&recorded, &said).unwrap();
        } else if fs::read_to_string(&recorded).unwrap_or_default() != said {
            wrong.push(format!("{} is now:\n{said}", recorded.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE=1 records it", wrong.join("\n"));
}

/// Formats the diagnostics, then the objects that were loaded nevertheless.
fn said(loaded: &Loaded, folder: &Path) -> String {
    let prefix = format!("{}/", folder.display());
    let mut lines: Vec<String> = loaded
        .diagnostics([])
        .iter()
        .map(|diagnostic| {
            let fatal = if diagnostic.fatal { "fatal  " } else { "       " };
            format!("{fatal}{}", diagnostic.to_string().replace(&prefix, ""))
        })
        .collect();
    lines.push(String::new());
    lines.extend(loaded.objects.iter().map(|checked| {
        let kept = if checked.faults.is_empty() { "loaded " } else { "marked " };
        format!("{kept}{}", checked.object.key())
    }));
    lines.join("\n") + "\n"
}

#[test]
fn an_alias_bomb_is_refused_in_time() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..40 {
        let alias = format!("*a{}", level - 1);
        let items = vec![alias; 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    let loaded = parse_bytes(Path::new("bomb.yaml"), text.as_bytes(), &environment);
    assert!(loaded.is_fatal());
    assert!(loaded.diagnostics([])[0].problem.contains("aliases counted"), "{loaded:?}");
}

#[test]
fn merged_aliases_count_as_what_they_hold() {
    let mut text = String::from("a: &a {");
    for field in 0..1_000 {
        text.push_str(&format!("f{field}: 1, "));
    }
    text.push_str("}\nb:\n");
    for _ in 0..1_000 {
        text.push_str("  - {<<: *a}\n");
    }
    let loaded = parse_bytes(Path::new("bomb.yaml"), text.as_bytes(), &environment);
    assert!(loaded.is_fatal());
    assert!(loaded.diagnostics([])[0].problem.contains("aliases counted"), "{loaded:?}");
}

#[test]
fn depth_is_bounded_also_through_aliases() {
    let deep = "[".repeat(100_000);
    let flow = format!("{}{}", "[".repeat(60), "]".repeat(60));
    let around = format!("{}*a{}", "[".repeat(60), "]".repeat(60));
    let aliases = format!("a: &a {flow}\nb: {around}\n");
    for text in [deep, "- ".repeat(100_000), "{a: ".repeat(100_000), aliases] {
        let loaded = parse_bytes(Path::new("deep.yaml"), text.as_bytes(), &environment);
        assert!(loaded.is_fatal(), "{}", &text[..20]);
        assert!(
            loaded.diagnostics([])[0].problem.contains("nested deeper"),
            "{:?}",
            loaded.diagnostics([])
        );
    }
}

#[test]
fn a_secret_is_never_printed() {
    let text = "\
apiVersion: v1
kind: Secret
metadata: {name: a}
data:
  one: hunter2-is-not-base64
stringData:
  two: 12345678
  three: [hunter2]
  five: ${PASSWORD}
extra: hunter2
";
    let loaded = parse_bytes(Path::new("a.yaml"), text.as_bytes(), &environment);
    assert_eq!(loaded.diagnostics([]).len(), 4, "{loaded:?}");
    let shown: Vec<String> = loaded.diagnostics([]).iter().map(ToString::to_string).collect();
    let shown = shown.join("\n");
    assert!(!shown.contains("hunter2") && !shown.contains("12345678"), "{shown}");

    let fine =
        text.lines().filter(|line| line.starts_with(|c: char| c != ' ') || line.contains("five"));
    let fine: Vec<&str> = fine.filter(|line| !line.contains("extra") && *line != "data:").collect();
    let loaded = parse_bytes(Path::new("a.yaml"), fine.join("\n").as_bytes(), &environment);
    assert_eq!(loaded.diagnostics([]), []);
    let Object::Secret(secret) = &loaded.objects[0].object else { panic!("a Secret") };
    assert_eq!(secret.value("five"), Some(&b"${PASSWORD}"[..]));
    assert!(!format!("{loaded:?}").contains("\"hunter2"), "{:?}", loaded.objects);
}

/// A value from the environment may be a password, even a number in the place of a duration.
#[test]
fn a_hint_never_holds_what_a_variable_stands_for() {
    let text = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\n\
                spec: {rules: [{timeouts: {request: \"${PIN}\", backendRequest: '${PIN}'}}]}\n";
    let loaded = parse_bytes(Path::new("a.yaml"), text.as_bytes(), &environment);
    assert_eq!(loaded.diagnostics([]).len(), 2, "{loaded:?}");
    for diagnostic in &loaded.diagnostics([]) {
        let told = diagnostic.to_string();
        assert!(!told.contains("31337") && told.contains("`${PIN}s`"), "{told}");
    }
}

#[test]
fn what_an_object_carries_is_loaded_as_it_is() {
    let text = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: a, annotations: {note: "${NOT_SET} ${"}}
data:
  entry.sh: exec server -c ${CONF:-/etc/server.conf} $$ ${PORT}
---
apiVersion: v1
kind: Secret
metadata: {name: a}
stringData: {password: "${PORT}$$"}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: HTTPRouteFilter
metadata: {name: a}
spec: {directResponse: {contentType: "text/${PORT}", body: {type: Inline, inline: "${PORT} ${a-b}"}}}
"#;
    let loaded = parse_bytes(Path::new("a.yaml"), text.as_bytes(), &environment);
    assert_eq!(loaded.diagnostics([]), []);
    let Object::ConfigMap(map) = &loaded.objects[0].object else { panic!("a ConfigMap") };
    assert_eq!(map.data["entry.sh"], "exec server -c ${CONF:-/etc/server.conf} $$ ${PORT}");
    let Object::Secret(secret) = &loaded.objects[1].object else { panic!("a Secret") };
    assert_eq!(secret.value("password"), Some(&b"${PORT}$$"[..]));
    let Object::RouteFilter(filter) = &loaded.objects[2].object else { panic!("a filter") };
    let answer = filter.spec.direct_response.as_ref().unwrap();
    assert_eq!(answer.content_type.as_deref(), Some("text/8443"));
    assert_eq!(answer.body.as_ref().unwrap().inline.as_deref(), Some("${PORT} ${a-b}"));
    // The API shows the objects as loaded.
    for (origin, want) in loaded.origins.iter().zip(["${CONF:-", "${PORT}$$", "${PORT} ${a-b}"]) {
        assert!(origin.written.json().contains(want), "{want}");
    }
}

#[test]
fn a_file_without_anything_in_it_is_told() {
    // (file, text, fatal faults, warnings)
    let table = [
        ("a.yaml", "", 0, 1),
        ("a.yaml", "\u{feff}\r\n \n", 0, 1),
        ("a.yaml", "# nothing yet\n", 0, 1),
        ("a.json", "", 1, 0),
    ];
    for (file, text, faults, warnings) in table {
        let loaded = parse_bytes(Path::new(file), text.as_bytes(), &environment);
        let count =
            |fatal| loaded.diagnostics([]).iter().filter(|told| told.fatal == fatal).count();
        assert_eq!((count(true), count(false)), (faults, warnings), "{text:?}: {loaded:?}");
    }
}

#[test]
fn a_field_of_metadata_is_known_or_a_fault() {
    // (field, fault)
    let table = [
        ("labels: {a: b}", false),
        ("uid: 0000", false),
        ("resourceVersion: \"1\"", false),
        ("lables: {a: b}", true),
        ("owner: me", true),
    ];
    for (field, fault) in table {
        let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  {field}\n");
        let loaded = parse_bytes(Path::new("a.yaml"), text.as_bytes(), &environment);
        assert_eq!(loaded.is_fatal(), fault, "{field}: {:?}", loaded.diagnostics([]));
    }
}

#[test]
fn json_that_is_something_else_is_left_alone() {
    for text in ["{\"name\": \"shop\", \"version\": \"1.0.0\"}", "[1, 2]", "\"text\""] {
        let loaded = parse_bytes(Path::new("package.json"), text.as_bytes(), &environment);
        assert_eq!((loaded.diagnostics([]).len(), loaded.is_fatal()), (1, false), "{loaded:?}");
    }
    // A part of an object is a broken object.
    let half = parse_bytes(Path::new("a.json"), b"{\"kind\": \"Service\"}", &environment);
    assert!(half.is_fatal(), "{half:?}");
}

#[test]
fn a_fault_in_json_has_its_place() {
    let text = [
        "{",
        "\t\"apiVersion\": \"v1\",",
        "\t\"kind\": \"ConfigMap\",",
        "\t\"metadata\": {\"name\": \"a\"},",
        "\t\"data\": {\"a\": 1},",
        "\t\"extra\": 1",
        "}",
    ];
    let text = text.join("\n");
    let loaded = parse_bytes(Path::new("a.json"), text.as_bytes(), &environment);
    let told: Vec<String> = loaded.diagnostics([]).iter().map(ToString::to_string).collect();
    let want = [
        "a.json:5:16: ConfigMap default/a: data.a: expected text, found the number `1`; put it in \
         quotes",
        "a.json:6:2: ConfigMap default/a: unknown field `extra`; known here: metadata, data, \
         binaryData, immutable",
    ];
    assert_eq!(told, want);
}

/// The bounds of a number in a hint are both valid.
#[test]
fn the_bounds_in_a_hint_are_allowed() {
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\n";
    let rule = |rule: &str| format!("{route}spec: {{rules: [{rule}]}}\n");
    let backend =
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: Backend\nmetadata: {name: a}\n";
    // Documents with `@` in place of the number.
    let documents = [
        rule("{backendRefs: [{name: a, port: @}]}"),
        rule("{backendRefs: [{name: a, port: 1, weight: @}]}"),
        rule("{retry: {codes: [@]}}"),
        rule("{retry: {attempts: @}}"),
        rule("{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, percent: @}}]}"),
        rule("{filters: [{type: CORS, cors: {allowOrigins: [\"*\"], maxAge: @}}]}"),
        format!("{backend}spec: {{endpoints: [{{fqdn: {{hostname: a.b, port: @}}}}]}}\n"),
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec:          {gatewayClassName: a, listeners: [{name: a, protocol: HTTP, port: @}]}\n"
            .into(),
    ];
    let problems = |document: &str, number: &str| -> Vec<String> {
        let text = document.replace('@', number);
        let loaded = parse_bytes(Path::new("a.yaml"), text.as_bytes(), &environment);
        loaded.diagnostics([]).into_iter().map(|diagnostic| diagnostic.problem).collect()
    };
    for document in documents {
        for wrong in ["-1", "99999999999"] {
            let told = problems(&document, wrong);
            assert_eq!(told.len(), 1, "{document}: {told:?}");
            let (_, bounds) =
                told[0].split_once("use a number from ").unwrap_or_else(|| panic!("{told:?}"));
            for bound in bounds.split(" to ") {
                assert_eq!(problems(&document, bound), [""; 0], "{document} with {bound}");
            }
        }
    }
}

proptest::proptest! {
    /// Text made of YAML's tokens, in any order, never causes a panic or a hang.
    #[test]
    fn any_text_is_read_or_refused(pieces in proptest::collection::vec(0..PIECES.len(), 0..60)) {
        let text: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        let loaded = parse_bytes(Path::new("any.yaml"), text.as_bytes(), &environment);
        for index in 0..loaded.objects.len() {
            let _ = loaded.place(index, &field_path!(spec.rules[0].name));
        }
    }
}

const PIECES: &[&str] = &[
    "\n",
    "\n  ",
    "\n    ",
    "---\n",
    "...\n",
    "- ",
    ": ",
    "? ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "!x ",
    "|\n",
    ">-\n",
    "\"",
    "'",
    "#",
    "\t",
    "%YAML 1.2\n",
    "\u{feff}",
    "${DOMAIN}",
    "${",
    "$$",
    "null",
    "~",
    "443",
    "x",
    "é",
    "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n",
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: a\nspec:\n  rules:\n",
    "kind: List\n",
    "items:\n",
    "    - matches:\n",
];
