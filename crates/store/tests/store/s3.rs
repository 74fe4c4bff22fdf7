//! Images in a bucket: a real server of the S3 protocol, PyPI `moto`, which decides who of several creators wins.
//!
//! `cargo xtask test` installs it into `target/moto`; without it these tests leave a note that they were skipped.

use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tine_base::SystemEnv;
use tine_store::{ForkId, ImagePlace, ObjectError, Objects, RemoteObjects, Store, StoreOptions, check_images};

use crate::support::{options, put_one, snapshot_content};

/// A server with an empty bucket, which ends with the test.
struct Bucket {
    server: Child,
    settings: HashMap<String, String>,
}

const URL: &str = "s3://bucket/some/folder";

impl Bucket {
    fn start(test: &str) -> Option<Bucket> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let target = target.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../target").into());
        let program = target.join("moto/bin/moto_server");
        if !program.exists() {
            let notes = target.join("tine-tests/skipped");
            std::fs::create_dir_all(&notes).expect("directory");
            std::fs::write(notes.join(test), "there is no target/moto").expect("note");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("moto starts");
        let mut settings = HashMap::new();
        for (name, value) in [
            ("aws_endpoint", format!("http://127.0.0.1:{port}")),
            ("aws_allow_http", "true".to_owned()),
            ("aws_region", "us-east-1".to_owned()),
            ("aws_access_key_id", "test".to_owned()),
            ("aws_secret_access_key", "test".to_owned()),
        ] {
            settings.insert(name.to_owned(), value);
        }
        let bucket = Bucket { server, settings };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !make_bucket(port) {
            assert!(Instant::now() < deadline, "moto did not answer in time");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(bucket)
    }

    fn place(&self) -> ImagePlace {
        ImagePlace::Url(URL.to_owned(), self.settings.clone())
    }

    fn objects(&self) -> RemoteObjects {
        RemoteObjects::url(URL, self.settings.clone()).expect("a place")
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// `PUT /bucket`; `false` while the server does not answer.
fn make_bucket(port: u16) -> bool {
    use std::io::{Read, Write};
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let request = "PUT /bucket HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\
        Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n";
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.contains(" 200 ")
}

#[test]
fn one_of_sixteen_creators_wins() {
    let Some(bucket) = Bucket::start("s3-creators") else { return };
    let objects = bucket.objects();
    for round in 0..5 {
        let name = format!("manifests/{round}");
        let mut won: Vec<u8> = std::thread::scope(|scope| {
            let attempt = |number: u8| match objects.create(&name, Bytes::from(vec![number; 5000])) {
                Ok(()) => Some(number),
                Err(ObjectError::Exists) => None,
                Err(error) => panic!("{error:?}"),
            };
            let tasks: Vec<_> = (0..16).map(|number| scope.spawn(move || attempt(number))).collect();
            tasks.into_iter().filter_map(|task| task.join().expect("no panic")).collect()
        });
        let winner = won.pop().expect("one wins");
        assert!(won.is_empty(), "only one wins");
        assert!(objects.read(&name, None).expect("there").iter().all(|byte| *byte == winner));
    }
    assert_eq!(
        &*objects.read("manifests/1", Some(4998..5000)).expect("a part"),
        &*objects.read("manifests/1", Some(0..2)).expect("a part")
    );
    assert!(matches!(objects.read("manifests/none", None), Err(ObjectError::Missing)));
    assert_eq!(objects.list("manifests").expect("list").len(), 5);
    objects.delete("manifests/1").expect("there");
    objects.delete("manifests/1").expect("not there");
    assert_eq!(objects.list("manifests").expect("list").len(), 4);
}

#[test]
fn a_store_moves_to_another_machine_and_fences_the_old_one() {
    let Some(bucket) = Bucket::start("s3-store") else { return };
    let (one, two) = (tempfile::tempdir().expect("directory"), tempfile::tempdir().expect("directory"));
    let open = |directory: &tempfile::TempDir| {
        let options = StoreOptions { images: bucket.place(), image_age_micros: 0, ..options(directory.path()) };
        Store::open(options, Arc::new(SystemEnv)).expect("open")
    };
    let old = open(&one);
    for number in 0..300_u64 {
        put_one(&old, ForkId::MAIN, &number.to_be_bytes(), &vec![number as u8; 500]);
    }
    old.image().expect("image");
    put_one(&old, ForkId::MAIN, b"one more", &vec![7; 50_000]);
    old.image().expect("image");
    let state = snapshot_content(&old, ForkId::MAIN);
    let new = open(&two);
    assert!(snapshot_content(&new, ForkId::MAIN) == state);
    put_one(&new, ForkId::MAIN, b"of the new", b"value");
    new.image().expect("takes over");
    put_one(&old, ForkId::MAIN, b"of the old", b"value");
    assert_eq!(old.image().expect_err("fenced").code(), "TN0264");
    put_one(&new, ForkId::MAIN, b"and on", b"value");
    new.image().expect("goes on");
    let check = check_images(Arc::new(bucket.objects())).expect("whole");
    assert!(check.pages > 40, "{check:?}");
}

#[test]
fn places_that_cannot_be_reached_are_errors() {
    let settings = [("aws_endpoint", "http://127.0.0.1:9"), ("aws_allow_http", "true"), ("aws_region", "us-east-1")];
    let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for (url, settings) in [("no url", HashMap::new()), ("unknown://place", HashMap::new()), ("s3://", settings)] {
        assert_eq!(RemoteObjects::url(url, settings).expect_err(url).code(), "TN0260");
    }
}
