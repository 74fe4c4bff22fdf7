//! Servers whose images are in a bucket.

use std::{collections::HashMap, fs, path::Path};

use serde_json::{Value, json};
use tine_store::{ObjectInfo, Objects, RemoteObjects};
use tine_tests::{
    bucket::Bucket,
    command::{Ran, run, tine},
    server::{Owned, TestServer},
    skip, wait,
};

/// Bytes of log after which a database is imaged.
const IMAGE_BYTES: u64 = 32 << 20;

fn objects(bucket: &Bucket, database: &Owned) -> RemoteObjects {
    let settings: HashMap<String, String> =
        bucket.environment().into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
    let url = format!("{}/{}", bucket.url(), database.published.database_identity);
    RemoteObjects::url(&url, settings).expect("a place")
}

fn manifests(place: &RemoteObjects) -> Vec<ObjectInfo> {
    place.list("manifests").expect("the bucket answers")
}

/// Number of the newest manifest, 0 without any.
fn newest(place: &RemoteObjects) -> u64 {
    let name = manifests(place).pop().map_or_else(String::new, |manifest| manifest.name);
    name.trim_start_matches("manifests/").trim_end_matches(".manifest").parse().unwrap_or(0)
}

fn rows(database: &Owned, server: &TestServer) -> Value {
    let client = server.anonymous().with_token(&database.token);
    let result = client.sql(&database.name, "SELECT COUNT(*) AS n FROM entry").expect("counted");
    result[0].rows[0][0].clone()
}

/// Writes until the database is imaged, for the first time since the server's start.
fn fill(database: &Owned, server: &TestServer, place: &RemoteObjects) {
    let before = newest(place);
    let client = server.anonymous().with_token(&database.token);
    let mut written = 0;
    while written < IMAGE_BYTES + (4 << 20) {
        client.call(&database.name, "fill", &json!([40, 100_000])).expect("written");
        written += 40 * 100_000;
    }
    // One manifest takes the place over, the next one has the images.
    wait::until_true("images in the bucket", || newest(place) >= before + 2);
}

fn command(bucket: &Bucket, server: &TestServer, arguments: &[&str]) -> Ran {
    let mut command = tine(server.folder());
    command.args(arguments).envs(bucket.environment());
    run(&mut command)
}

fn log_of(server: &TestServer, database: &Owned) -> std::path::PathBuf {
    server.data().join("databases").join(&database.published.database_identity).join("log")
}

#[test]
fn a_server_keeps_its_images_in_a_bucket() {
    let bucket = match Bucket::start() {
        Ok(bucket) => bucket,
        Err(reason) => return skip(reason),
    };
    let mut server = TestServer::start_in(&["--images", bucket.url()], bucket.environment());
    let database = server.publish_probe("bucket");
    let place = objects(&bucket, &database);
    fill(&database, &server, &place);
    let counted = rows(&database, &server);
    assert!(!server.data().join("databases").join(&database.published.database_identity).join("images").exists());

    // Killed, and opened again from the bucket and the log behind it; nobody has to say where the images are.
    server.kill();
    server.set_options(&[]);
    server.restart();
    assert_eq!(rows(&database, &server), counted);
    let data = server.data();
    let data = data.to_str().expect("a path in text");
    let checked = command(&bucket, &server, &["store", "check", data, "--json"]).expect(0).json();
    let versions = checked["stores"].as_array().expect("stores").iter().filter_map(|store| store["versions"].as_u64());
    assert!(versions.sum::<u64>() >= 1, "{checked}");
    let saved = server.folder().join("saved");
    let saved = saved.to_str().expect("a path in text");
    command(&bucket, &server, &["backup", saved, "--data-dir", data]).expect(0);
    command(&bucket, &server, &["restore", saved, "--check"]).expect(0);

    // Another place than the one with the images is refused.
    server.kill();
    server.set_options(&["--images", "s3://bucket/other"]);
    let refused = server.try_restart().expect_err("the images are elsewhere");
    assert!(refused.log.contains("TN0625"), "{}", refused.log);
    assert_eq!(refused.status.and_then(|status| status.code()), Some(2));

    // Without the log the database is as the images have it, and goes on from there.
    fs::remove_dir_all(log_of(&server, &database)).expect("the disk is lost");
    server.set_options(&["--images", bucket.url()]);
    server.restart();
    let imaged = rows(&database, &server).as_u64().expect("a number");
    assert!(imaged > 0 && imaged <= counted.as_u64().expect("a number"), "{imaged} of {counted}");
    fill(&database, &server, &place);
    let counted = rows(&database, &server);
    server.kill();
    server.restart();
    assert_eq!(rows(&database, &server), counted);

    // What belongs to a database goes with it.
    server.anonymous().with_token(&database.token).delete(&database.name, false).expect("deleted");
    assert!(manifests(&place).is_empty() && place.list("packs").expect("the bucket answers").is_empty());
    server.stop();
}

/// Images of a time without a bucket are moved into it.
#[test]
fn images_move_into_a_bucket() {
    let bucket = match Bucket::start() {
        Ok(bucket) => bucket,
        Err(reason) => return skip(reason),
    };
    let mut server = TestServer::start_in(&[], bucket.environment());
    let database = server.publish_probe("moving");
    let place = objects(&bucket, &database);
    let local = server.data().join("databases").join(&database.published.database_identity).join("images");
    let packs = |local: &Path| fs::read_dir(local.join("packs")).map_or(0, |packs| packs.count());
    let client = server.anonymous().with_token(&database.token);
    for _ in 0..9 {
        client.call(&database.name, "fill", &json!([40, 100_000])).expect("written");
    }
    wait::until_true("local images", || {
        packs(&local) > 0 && fs::read_dir(local.join("manifests")).is_ok_and(|all| all.count() > 1)
    });
    let counted = rows(&database, &server);
    server.stop();
    server.set_options(&["--images", bucket.url()]);
    server.restart();
    assert!(!local.exists() && !manifests(&place).is_empty());
    assert_eq!(rows(&database, &server), counted);
    server.kill();
    fs::remove_dir_all(log_of(&server, &database)).expect("the disk is lost");
    server.restart();
    assert!(rows(&database, &server).as_u64().expect("a number") > 0);
}

#[test]
fn a_bucket_that_does_not_answer_is_an_error_at_the_start() {
    let settings = [("AWS_ENDPOINT", "http://127.0.0.1:9"), ("AWS_ALLOW_HTTP", "true"), ("AWS_REGION", "us-east-1")];
    let mut server = TestServer::start();
    server.kill();
    server.set_options(&["--images", "unknown://place"]);
    let refused = server.try_restart().expect_err("no such kind of place");
    assert!(refused.log.contains("TN0260"), "{}", refused.log);
    let config =
        run(tine(server.folder()).args(["config", "show", "--json"]).env("TINE_IMAGES", "s3://a/b").envs(settings));
    let shown = config.expect(0).json();
    let images = shown["settings"].as_array().expect("settings").iter().find(|setting| setting["name"] == "images");
    let images = images.expect("it is a setting");
    assert_eq!((&images["value"], &images["origin"]), (&json!("s3://a/b"), &json!("TINE_IMAGES")));
}
