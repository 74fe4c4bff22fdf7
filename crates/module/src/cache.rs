//! Compiled bundles kept between runs of a server, so that a restart does not parse them again.
//!
//! The engine trusts bytecode, so nobody but the server may have made what is read back. Each entry is sealed: a keyed hash over
//! its name and content, with a key that only the server can read. What does not open (another key, another engine, a torn write,
//! a changed byte, an entry under another's name) is as good as not there and is written anew.
//!
//! An entry is the magic, the seal, and the content: the module's definition and its bytecode, each with its length. Its name is the
//! hash of the program and of what identifies the engine, so an engine never sees another's bytecode.

use tine_types::bsatn::{BsatnWrite, Reader};

/// First bytes of an entry; the last is the format's version.
const MAGIC: &[u8; 8] = b"TINECODE";

/// Bytes of a seal.
const SEAL_BYTES: usize = blake3::OUT_LEN;

/// Where entries are kept. Nothing that it does can do harm but lose them.
pub trait CodeStorage: Send + Sync {
    /// The bytes kept under a name, if there are any. Names are of lower-case letters and digits.
    fn read(&self, name: &str) -> Option<Vec<u8>>;

    /// Keeps bytes under a name. A failure is not reported: the next start compiles.
    fn write(&self, name: &str, bytes: &[u8]);
}

/// Compiled bundles, sealed in a storage.
pub struct CodeCache {
    key: [u8; 32],
    storage: Box<dyn CodeStorage>,
}

/// What an entry holds.
pub(crate) struct Entry {
    /// An encoded module definition.
    pub def: Vec<u8>,
    pub bytecode: Vec<u8>,
}

impl CodeCache {
    /// A cache in `storage`, sealed with `key`. The key must be secret: who knows it can run code in this process.
    pub fn new(key: [u8; 32], storage: Box<dyn CodeStorage>) -> CodeCache {
        CodeCache { key, storage }
    }

    /// The entry of a program for an engine.
    pub(crate) fn load(&self, program: &[u8; 32], engine: &[u8; 32]) -> Option<Entry> {
        let name = name_of(program, engine);
        let bytes = self.storage.read(&name)?;
        let content = self.open(&name, &bytes)?;
        let mut reader = Reader::new(content);
        let entry = Entry { def: reader.bytes().ok()?.to_vec(), bytecode: reader.bytes().ok()?.to_vec() };
        reader.finish().ok()?;
        Some(entry)
    }

    /// Keeps an entry.
    pub(crate) fn store(&self, program: &[u8; 32], engine: &[u8; 32], entry: &Entry) {
        let name = name_of(program, engine);
        let mut content = Vec::with_capacity(entry.def.len() + entry.bytecode.len() + 8);
        content.put_bytes(&entry.def);
        content.put_bytes(&entry.bytecode);
        let mut bytes = Vec::with_capacity(MAGIC.len() + SEAL_BYTES + content.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.seal(&name, &content).as_bytes());
        bytes.extend_from_slice(&content);
        self.storage.write(&name, &bytes);
    }

    /// The content of an entry whose seal is right.
    fn open<'b>(&self, name: &str, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let (seal, content) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<SEAL_BYTES>()?;
        // Compared in constant time.
        (self.seal(name, content) == *seal).then_some(content)
    }

    fn seal(&self, name: &str, content: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        // Names have one length, so no two pairs of name and content are hashed alike.
        hasher.update(name.as_bytes()).update(content).finalize()
    }
}

impl std::fmt::Debug for CodeCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeCache").finish_non_exhaustive()
    }
}

fn name_of(program: &[u8; 32], engine: &[u8; 32]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(program).update(engine).finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<HashMap<String, Vec<u8>>>>);

    impl CodeStorage for Memory {
        fn read(&self, name: &str) -> Option<Vec<u8>> {
            self.0.lock().expect("no panic").get(name).cloned()
        }

        fn write(&self, name: &str, bytes: &[u8]) {
            self.0.lock().expect("no panic").insert(name.to_owned(), bytes.to_owned());
        }
    }

    const PROGRAM: [u8; 32] = [1; 32];
    const ENGINE: [u8; 32] = [2; 32];

    fn cache(key: u8) -> (CodeCache, Memory) {
        let memory = Memory::default();
        let cache = CodeCache::new([key; 32], Box::new(memory.clone()));
        cache.store(&PROGRAM, &ENGINE, &Entry { def: vec![7; 5], bytecode: vec![8; 9] });
        (cache, memory)
    }

    #[test]
    fn what_is_stored_is_found_for_the_same_program_and_engine() {
        let (cache, _) = cache(3);
        let entry = cache.load(&PROGRAM, &ENGINE).expect("stored");
        assert_eq!((entry.def, entry.bytecode), (vec![7; 5], vec![8; 9]));
        assert!(cache.load(&[9; 32], &ENGINE).is_none());
        assert!(cache.load(&PROGRAM, &[9; 32]).is_none());
    }

    #[test]
    fn every_change_and_cut_is_noticed() {
        let (cache, memory) = cache(3);
        let (name, bytes) = memory.0.lock().expect("no panic").clone().into_iter().next().expect("one entry");
        for place in 0..bytes.len() {
            for changed in [
                {
                    let mut bytes = bytes.clone();
                    bytes[place] ^= 1;
                    bytes
                },
                bytes[..place].to_vec(),
            ] {
                memory.write(&name, &changed);
                assert!(cache.load(&PROGRAM, &ENGINE).is_none(), "byte {place}");
            }
        }
        memory.write(&name, &[&bytes[..], b"x"].concat());
        assert!(cache.load(&PROGRAM, &ENGINE).is_none(), "padded");
        memory.write(&name, &bytes);
        assert!(cache.load(&PROGRAM, &ENGINE).is_some());
    }

    #[test]
    fn another_key_or_another_name_opens_nothing() {
        let (_, memory) = cache(3);
        let thief = CodeCache::new([4; 32], Box::new(memory.clone()));
        assert!(thief.load(&PROGRAM, &ENGINE).is_none());
        let owner = CodeCache::new([3; 32], Box::new(memory.clone()));
        let bytes = memory.read(&name_of(&PROGRAM, &ENGINE)).expect("stored");
        memory.write(&name_of(&[5; 32], &ENGINE), &bytes);
        assert!(owner.load(&[5; 32], &ENGINE).is_none(), "moved to another program");
        assert!(owner.load(&PROGRAM, &ENGINE).is_some());
    }
}
