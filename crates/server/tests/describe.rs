//! What a server says about a database and about each request.

mod common;

use common::TestServer;
use serde_json::{Value, json};

/// A name and a value.
type Header<'a> = (&'a str, &'a str);

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let found = list.as_array().expect("a list").iter().find(|item| item["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schema_in_version_nine_has_canonical_names() {
    let server = TestServer::with_people().await;
    let schema = server.get("/v1/database/people/schema?version=9").await.json();
    let person = named(&schema["tables"], "person");
    assert_eq!(person["table_type"], json!({ "User": [] }));
    assert_eq!(person["primary_key"], json!([0]));
    assert_eq!(person["schedule"], json!({ "none": [] }));
    assert_eq!(person["constraints"][0]["data"], json!({ "Unique": { "columns": [0] } }));
    assert_eq!(person["indexes"][0]["name"], json!({ "some": "person_id_idx_btree" }));
    let row = person["product_type_ref"].as_u64().expect("a reference") as usize;
    let columns = &schema["typespace"]["types"][row]["Product"]["elements"];
    let names: Vec<&Value> = columns.as_array().expect("columns").iter().map(|column| &column["name"]).collect();
    assert_eq!(json!(names), json!([{ "some": "id" }, { "some": "name" }, { "some": "best_friend" }]));
    let reducers = &schema["reducers"];
    assert_eq!(named(reducers, "set_up")["lifecycle"], json!({ "some": { "Init": [] } }));
    let add_mark = named(reducers, "add_mark");
    assert_eq!(add_mark["lifecycle"], json!({ "none": [] }));
    assert_eq!(add_mark["params"]["elements"][0]["name"], json!({ "some": "big" }));
    assert_eq!(schema["misc_exports"][0]["Procedure"]["name"], "twice");
    assert_eq!(schema["misc_exports"][0]["Procedure"]["return_type"], json!({ "U64": [] }));
    let typed = schema["types"].as_array().expect("types").iter().any(|ty| ty["ty"] == json!(row));
    assert!(typed, "the row type has a name: {}", schema["types"]);
    for version in ["?version=8", "?version=", ""] {
        assert_eq!(server.get(&format!("/v1/database/people/schema{version}")).await.status, 400, "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reply_carries_the_id_of_its_request() {
    let server = TestServer::with_people().await;
    for (path, status) in [("/v1/ping", 200), ("/nowhere", 404), ("/v1/database/people/schema", 400)] {
        let given = server.http("GET", path, &[("x-request-id", "from-the-caller.7")], b"").await;
        assert_eq!((given.status, given.header("x-request-id")), (status, Some("from-the-caller.7")), "{path}");
        let (first, second) = (server.get(path).await, server.get(path).await);
        let made = first.header("x-request-id").expect("an id");
        assert!(made.len() == 32 && Some(made) != second.header("x-request-id"), "{path} {made}");
    }
    let forged = server.http("GET", "/v1/ping", &[("x-request-id", "a b\"c")], b"").await;
    assert_ne!(forged.header("x-request-id"), Some("a b\"c"));
    let bearer = [("origin", "http://elsewhere.example"), ("access-control-request-method", "POST")];
    let preflight = server.http("OPTIONS", "/v1/database/people/sql", &bearer, b"").await;
    assert!(preflight.header("access-control-allow-headers").is_some_and(|list| list.contains("x-request-id")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_answers_to_all_its_names() {
    let server = TestServer::with_people().await;
    let admin = server.admin();
    let typescript = ("content-type", "text/typescript");
    let module = common::MODULE.as_bytes();
    assert_eq!(server.http("PUT", "/v1/database/others", &[typescript, admin], module).await.status, 200);
    let path = "/v1/database/people/names";
    let added = server.http("POST", path, &[admin], b"folks").await;
    assert_eq!((added.status, &added.json()["Success"]["domain"]), (200, &json!("folks")));
    assert_eq!(server.get("/v1/database/folks/names").await.json(), json!({ "names": ["people", "folks"] }));
    let identity = server.get("/v1/database/folks/identity").await.body;
    let taken = server.http("POST", path, &[admin], b"others").await;
    assert_eq!((taken.status, taken.json()), (401, json!({ "PermissionDenied": { "domain": "others" } })));
    let cases: [(&str, &[Header], &str, u16); 7] = [
        ("POST", &[], "x", 403),
        ("PUT", &[], "[]", 401),
        ("POST", &[admin], "No Name", 400),
        ("PUT", &[admin], "{}", 400),
        ("PUT", &[admin], "[5]", 400),
        ("PUT", &[admin], r#"["crowd","others"]"#, 400),
        ("PUT", &[admin], r#"["crowd","people-2","crowd"]"#, 200),
    ];
    for (method, headers, body, status) in cases {
        let reply = server.http(method, path, headers, body.as_bytes()).await;
        assert_eq!(reply.status, status, "{method} {body} {reply:?}");
    }
    for (name, status) in [("people", 404), ("folks", 404), ("crowd", 200), ("people-2", 200), (identity.as_str(), 200)]
    {
        assert_eq!(server.get(&format!("/v1/database/{name}/names")).await.status, status, "{name}");
    }
    // The names that were given up are free, and all are remembered.
    assert_eq!(server.http("POST", "/v1/database/others/names", &[admin], b"people").await.status, 200);
    let (address, folder) = (server.address, server.folder);
    server.server.shutdown(std::time::Duration::from_secs(5)).await.expect("ended");
    let options = tine_server::ServerOptions::new(address, folder.path().to_path_buf());
    let again = tine_server::Server::start(options, std::sync::Arc::new(tine_base::SystemEnv), |_| {}).await;
    let again = again.expect("started again");
    let info = again.host().database("crowd").expect("found");
    let names: Vec<&str> = info.names.iter().map(AsRef::as_ref).collect();
    assert_eq!((names, info.identity.to_hex()), (vec!["crowd", "people-2"], identity));
    assert!(again.host().database("people").is_ok());
}
