//! SecurityPolicies on a Gateway and its routes: the one that applies, and their statuses.

use crate::support::{Gateway, Origin, serve_all};

/// A SecurityPolicy with one target and these fields beside it.
fn policy(name: &str, target: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: SecurityPolicy\n\
         metadata: {{name: {name}, namespace: envoy-gateway-system}}\nspec:\n  \
         targetRefs: [{{group: gateway.networking.k8s.io, {target}}}]\n{fields}"
    )
}

/// The status of one policy, as `check --status` prints it.
async fn status_of(gateway: &Gateway, name: &str) -> String {
    let mut command = gateway.setup_ref().command("check --status");
    command.args(gateway.setup_ref().files());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let documents = printed.split("---\n");
    let named = format!("kind: SecurityPolicy\nmetadata:\n  name: {name}\n");
    let found = documents.into_iter().find(|document| document.contains(&named));
    found.unwrap_or_else(|| panic!("{name}: {printed}")).to_owned()
}

#[tokio::test]
async fn the_policy_of_a_route_is_merged_with_that_of_its_gateway() {
    let shop = Origin::replying("shop").await;
    let cors = "  cors: {allowOrigins: [\"https://app.test\"], allowMethods: [GET]}\n";
    let merged = "  mergeType: StrategicMerge\n  cors: {allowMethods: [PUT], maxAge: 1m}\n";
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &serve_all("blog", "blog.test", &[shop.address])
        + &policy("base", "kind: Gateway, name: eg", cors)
        + &policy("shop", "kind: HTTPRoute, name: shop", merged);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    // (host, methods, how long a browser keeps the answer)
    for (host, methods, age) in [("shop.test", "PUT", Some("60")), ("blog.test", "GET", None)] {
        let mut wire = gateway.wire().await;
        wire.send(format!(
            "OPTIONS / HTTP/1.1\r\nHost: {host}\r\nOrigin: https://app.test\r\n\
             Access-Control-Request-Method: {methods}\r\nConnection: close\r\n\r\n"
        ))
        .await;
        let reply = wire.reply().await;
        let header = |name: &str| reply.header(&format!("access-control-{name}"));
        assert_eq!(header("allow-origin").as_deref(), Some("https://app.test"), "{host}");
        assert_eq!(header("allow-methods").as_deref(), Some(methods), "{host}");
        assert_eq!(header("max-age").as_deref(), age, "{host}");
    }

    let status = status_of(&gateway, "shop").await;
    assert!(status.contains("sectionName: http\n"), "{status}");
    let merged = "message: merged with SecurityPolicy envoy-gateway-system/base\n";
    assert!(status.contains(merged) && status.contains("type: Merged\n"), "{status}");
    let status = status_of(&gateway, "base").await;
    let routes = "routes HTTPRoute envoy-gateway-system/shop\n";
    assert!(status.contains(&format!("message: merged with the policies of {routes}")), "{status}");
}

#[tokio::test]
async fn two_policies_for_one_route_close_it_and_the_second_says_so() {
    let shop = Origin::replying("shop").await;
    let cors = "  cors: {allowOrigins: [\"https://app.test\"]}\n";
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &serve_all("blog", "blog.test", &[shop.address])
        + &policy("first", "kind: HTTPRoute, name: shop", cors)
        + &policy("second", "kind: HTTPRoute, name: shop", cors);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    assert_eq!(gateway.get("http://shop.test/").await.status(), 500);
    assert_eq!(gateway.get("http://blog.test/").await.text(), "shop");
    assert!(status_of(&gateway, "first").await.contains("reason: Accepted\n"));
    let status = status_of(&gateway, "second").await;
    assert!(status.contains("reason: Conflicted\n"), "{status}");
    assert!(status.contains("HTTPRoute envoy-gateway-system/shop is a target of"), "{status}");
}
