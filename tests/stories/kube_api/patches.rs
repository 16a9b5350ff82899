//! Server-side apply, and the patches.

use serde_json::{Value, json};

use super::{Api, GROUP, NAMESPACE, routes};

/// Server-side apply, and the two patches that are no merge patch.
#[tokio::test]
async fn objects_are_applied_and_patched() {
    let api = Api::writable().await;
    let one = format!("{}/cart", routes());
    let apply = format!("{one}?fieldManager=me");
    let text = |host: &str, more: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
             metadata: {{name: cart{more}}}\nspec: {{hostnames: [{host}]}}\n"
        )
    };
    let yaml = "application/apply-patch+yaml";
    let (reply, made) = api.call("PATCH", &apply, yaml, &text("a.test", ", labels: {x: y}")).await;
    assert_eq!(reply.status(), 201, "{made}");
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "me", "{made}");
    let (reply, next) = api.call("PATCH", &apply, yaml, &text("b.test", "")).await;
    assert_eq!(reply.status(), 200, "{next}");
    assert_eq!(next["spec"]["hostnames"], json!(["b.test"]));
    assert!(next["metadata"]["labels"].get("x").is_none(), "{next}");
    let other = format!("{one}?fieldManager=you");
    let (reply, refused) = api.call("PATCH", &other, yaml, &text("c.test", "")).await;
    assert_eq!(reply.status(), 409, "{refused}");
    assert_eq!(refused["details"]["causes"][0]["reason"], "FieldManagerConflict", "{refused}");
    let forced = format!("{other}&force=true");
    let (reply, taken) = api.call("PATCH", &forced, yaml, &text("c.test", "")).await;
    assert_eq!((reply.status(), &taken["spec"]["hostnames"]), (200, &json!(["c.test"])));

    let operations = r#"[{"op":"replace","path":"/spec/hostnames/0","value":"d.test"}]"#;
    let (reply, patched) = api.call("PATCH", &one, "application/json-patch+json", operations).await;
    assert_eq!((reply.status(), &patched["spec"]["hostnames"]), (200, &json!(["d.test"])));
    let dry = format!("{one}?dryRun=All");
    let (status, would) =
        api.send("PATCH", &dry, &json!({ "spec": { "hostnames": ["e.test"] } })).await;
    assert_eq!((status, &would["spec"]["hostnames"]), (200, &json!(["e.test"])));
    assert_eq!(api.get(&one).await.1["spec"]["hostnames"], json!(["d.test"]));
}

/// Of a class that is not served, so no listener needs a socket.
fn gateway_with(listeners: &Value) -> String {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": { "name": "edge" },
        "spec": { "gatewayClassName": "other", "listeners": listeners },
    })
    .to_string()
}

/// A listener is a field of its own, told apart by its name, as the CRD says.
#[tokio::test]
async fn two_who_apply_have_listeners_of_their_own_in_one_gateway() {
    let api = Api::writable().await;
    let one = format!("{GROUP}/namespaces/{NAMESPACE}/gateways/edge");
    let apply = async |who: &str, listeners: Value| {
        let path = format!("{one}?fieldManager={who}");
        let yaml = "application/apply-patch+yaml";
        let (reply, object) = api.call("PATCH", &path, yaml, &gateway_with(&listeners)).await;
        (reply.status(), object)
    };
    let names = |object: &Value| -> Vec<String> {
        let listeners = object["spec"]["listeners"].as_array().into_iter().flatten();
        listeners.map(|listener| listener["name"].as_str().unwrap().to_owned()).collect()
    };
    let http = json!({ "name": "http", "port": 80, "protocol": "HTTP" });
    let shop = json!({ "name": "shop", "port": 8080, "protocol": "HTTP" });
    assert_eq!(apply("me", json!([http])).await.0, 201);
    let (status, both) = apply("you", json!([shop])).await;
    assert_eq!((status, names(&both)), (200, vec!["http".into(), "shop".into()]), "{both}");

    // A port of another's is a conflict, which names the listener; one's own is changed.
    let (status, refused) =
        apply("you", json!([{ "name": "http", "port": 81, "protocol": "HTTP" }])).await;
    assert_eq!(status, 409, "{refused}");
    let cause = &refused["details"]["causes"][0];
    assert_eq!(cause["field"], r#".spec.listeners[name="http"].port"#, "{refused}");
    let (status, moved) =
        apply("you", json!([{ "name": "shop", "port": 81, "protocol": "HTTP" }])).await;
    assert_eq!((status, &moved["spec"]["listeners"][1]["port"]), (200, &json!(81)), "{moved}");

    // What one leaves out goes, the other's stays.
    let (status, left) =
        apply("me", json!([{ "name": "new", "port": 82, "protocol": "HTTP" }])).await;
    assert_eq!((status, names(&left)), (200, vec!["shop".into(), "new".into()]), "{left}");

    // Two of one name are still refused, in upstream's words.
    let (status, refused) = apply("me", json!([http, http])).await;
    let message = refused["message"].as_str().unwrap();
    assert_eq!(status, 422, "{refused}");
    assert!(message.contains("Listener name must be unique within the Gateway"), "{message}");
    assert_eq!(names(&api.get(&one).await.1), ["shop", "new"]);
}
