//! `status`, `certs`, `routes` and `top` on terminals of several widths, in a pipe, and as data.

use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use crate::support::{
    Gateway, NAMES, Origin, backend, ca, http_route, in_package, on_terminal, rule_to,
};

use super::{operator, stdout};

const COMMANDS: [&str; 4] = ["status", "certs", "routes", "top --once --interval 100ms"];
const LONG: &str = "/a/path/that/is/longer/than/anybody/would/like/it/to/be/and/goes/on/and/on";
/// Twice as wide as it is long.
const WIDE: &str = "日本語日本語日本語日本語日本語日本語";

/// Rules that are long in every way, one that leads nowhere, and requests that were counted.
async fn gateway() -> (Gateway, Origin) {
    let shop = Origin::replying("shop").await;
    let hosts = ["a-name-that-goes-on.shop.test", "shop.test"];
    let wide = format!("- matches: [{{headers: [{{name: X-A, value: {WIDE}}}]}}]\n");
    let rules = rule_to(LONG, "shop") + &wide + &rule_to("/", "shop");
    let setup = Gateway::setup();
    let names = [&NAMES[..], &["a-name-that-goes-on.shop.test", "lost.test"]].concat();
    setup.lineage().renew(&ca().leaf(&names));
    let gateway = setup
        .file("routes/shop.yaml", &backend("shop", &[shop.address]))
        .file("routes/long.yaml", &http_route("a-route-with-a-long-name", &hosts, &rules))
        .file("routes/lost.yaml", &http_route("lost", &["lost.test"], &rule_to("/", "nowhere")))
        .start()
        .await;
    for path in ["/", LONG, "/other"] {
        assert_eq!(gateway.get(&format!("http://shop.test{path}")).await.status(), 200);
    }
    (gateway, shop)
}

#[tokio::test]
async fn a_table_is_no_wider_than_the_terminal() {
    let (gateway, _shop) = gateway().await;
    for command in COMMANDS {
        for columns in [40, 60, 80, 200] {
            let said = on_terminal(gateway.setup_ref().command(command), columns).await;
            assert!(said.status.success(), "{command}: {said:?}");
            let lines = said.lines();
            assert!(lines.len() > 1, "{command}: {lines:#?}");
            for line in &lines {
                assert!(line.width() <= columns.into(), "{columns} for {command}: {lines:#?}");
            }
            let is_whole = lines.iter().any(|line| line.contains(LONG));
            if command == "routes" {
                assert_eq!(is_whole, columns == 200, "the path in {columns}: {lines:#?}");
            }
        }
    }
    // Nothing of it is shortened where there is no terminal, and where that is asked for.
    let piped = stdout(&operator(gateway.setup_ref(), "routes", &[]).await);
    let said = on_terminal(gateway.setup_ref().command("routes -o wide"), 60).await;
    for text in [piped, said.lines().join("\n")] {
        assert!(text.contains(LONG) && text.contains(WIDE) && !text.contains('…'), "{text}");
    }
}

#[tokio::test]
async fn columns_and_colours_are_as_the_environment_has_them() {
    let (gateway, _shop) = gateway().await;
    // (name, value, columns at most, coloured)
    let table = [
        ("TERM", "xterm-256color", 80, true),
        ("COLUMNS", "50", 50, true),
        ("COLUMNS", "none", 80, true),
        ("NO_COLOR", "1", 80, false),
        ("NO_COLOR", "", 80, true),
        ("TERM", "dumb", 80, false),
    ];
    for (name, value, columns, coloured) in table {
        let mut command = gateway.setup_ref().command("status");
        command.env(name, value);
        let said = on_terminal(command, 80).await;
        assert_eq!(said.text.contains("\x1b["), coloured, "{name}={value}: {said:?}");
        let widest = said.lines().iter().map(|line| line.width()).max().unwrap();
        assert!((columns - 10..=columns).contains(&widest), "{name}={value}: {said:?}");
    }
    let piped = stdout(&operator(gateway.setup_ref(), "status", &[]).await);
    assert!(!piped.contains("\x1b["), "{piped}");
}

#[tokio::test]
async fn what_a_table_shows_is_there_as_data() {
    let (gateway, _shop) = gateway().await;
    // (command, a place in the data)
    let table = [
        ("status", "/items/0/kind"),
        ("certs", "/certificates/0/verdict"),
        ("routes", "/routes/0/rule"),
        ("top --interval 100ms", "/routes/0/requests_per_second"),
    ];
    for (command, place) in table {
        let json = operator(gateway.setup_ref(), command, &["-o", "json"]).await;
        assert!(json.status.success(), "{command}: {json:?}");
        let value: Value = serde_json::from_str(&stdout(&json)).unwrap();
        assert!(value.pointer(place).is_some(), "{command}: {value:#}");
        let yaml = operator(gateway.setup_ref(), command, &["-o", "yaml"]).await;
        let key = place.rsplit('/').next().unwrap();
        assert!(stdout(&yaml).contains(&format!("{key}: ")), "{command}: {yaml:?}");
    }
    let both = operator(gateway.setup_ref(), "certs", &["--json", "-o", "yaml"]).await;
    assert_eq!(both.status.code(), Some(2), "{both:?}");
}

#[tokio::test]
async fn where_nothing_is_served_the_commands_say_what_to_do() {
    let gateway = Gateway::start().await;
    // (command, what it says)
    let table = [
        ("routes", "Write an HTTPRoute"),
        ("routes --host shop", "has `shop` in it"),
        ("top --once --interval 100ms", "edge-gateway routes"),
        ("status httproutes", "no httproutes is served; `edge-gateway check`"),
    ];
    for (command, want) in table {
        let said = operator(gateway.setup_ref(), command, &[]).await;
        assert!(said.status.success() && stdout(&said).contains(want), "{command}: {said:?}");
    }
}

/// The deployment that the gateway was made for, as somebody sees it who has never seen it.
#[tokio::test]
async fn the_deployment_reads_well_on_a_usual_terminal() {
    let folder = in_package("tests/fixtures/deployment");
    let gateway = Gateway::with_configuration(&folder, "standalone-prod.yaml").start().await;
    let said = on_terminal(gateway.setup_ref().command("routes"), 80).await;
    let lines = said.lines();
    let want = "\
HOST  MATCH                   GOES TO           ROUTE                 RULE  HITS
listener envoy-gateway-system/eg/http, port 8080
*     prefix /                redirect 301 sc…  …stem/https-redirect  0        0
listener envoy-gateway-system/eg/https, port 8443
*     prefix /auth/admin      keycloak          …way-system/keycloak  0        0
";
    assert_eq!(lines[..5], want.lines().collect::<Vec<_>>(), "{lines:#?}");
}
