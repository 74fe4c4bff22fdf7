//! A bucket: a server of the S3 protocol, PyPI `moto`, which `cargo xtask test` installs.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::target;

/// How long the server may take until it answers.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A server with one empty bucket, which ends with this value.
#[derive(Debug)]
pub struct Bucket {
    server: Child,
    port: u16,
}

impl Bucket {
    /// Starts the server.
    ///
    /// # Errors
    /// Why it cannot be used here.
    ///
    /// # Panics
    /// When it does not answer in time.
    pub fn start() -> Result<Bucket, &'static str> {
        let program = target().join("moto/bin/moto_server");
        if !program.exists() {
            return Err("there is no target/moto");
        }
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("moto starts");
        let bucket = Bucket { server, port };
        let deadline = Instant::now() + READY_TIMEOUT;
        while !bucket.make() {
            assert!(Instant::now() < deadline, "moto did not answer in time");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(bucket)
    }

    /// Its URL.
    pub fn url(&self) -> &'static str {
        "s3://bucket/tine"
    }

    /// What programs find it by: the variables of the provider's own tools.
    pub fn environment(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let variables = [
            ("AWS_ENDPOINT", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    /// `PUT /bucket`; `false` while the server does not answer.
    fn make(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let request = "PUT /bucket HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\
            Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, \
            SignedHeaders=host, Signature=0\r\n\r\n";
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.contains(" 200 ")
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
