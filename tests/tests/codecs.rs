//! Our BSATN and JSON against the npm SDK's codec, which runs in Node on a pipe: random values of random types.
//!
//! Left out is what the SDK cannot say: options of options (it has one nothing), results whose two types differ (it writes both
//! with the first), members without names, and NaNs, whose bits no JavaScript engine promises to keep.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};
use tine_tests::{npm, skip};
use tine_types::bsatn::{Reader, encode_value};
use tine_types::json::{bsatn_to_json, json_to_bsatn, type_to_json};
use tine_types::{AlgebraicType, AlgebraicValue, I256, ProductType, SumType, U256};

/// Values that are compared; ten times as many in the long run.
const VALUES: u64 = 3_000;
/// How deep types nest.
const DEPTH_MAX: u32 = 4;

/// SplitMix64: the seed of a case is its number, so that one that fails can be repeated alone.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Small numbers, edges and everything else, about as often.
    fn bits(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(3),
            1 => u64::MAX - self.below(3),
            2 => 1 << self.below(64),
            _ => self.next(),
        }
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.bits()) << 64 | u128::from(self.bits())
    }

    fn leaf(&mut self) -> AlgebraicType {
        use AlgebraicType as T;
        let leaves = [
            T::Bool,
            T::I8,
            T::U8,
            T::I16,
            T::U16,
            T::I32,
            T::U32,
            T::I64,
            T::U64,
            T::I128,
            T::U128,
            T::I256,
            T::U256,
            T::F32,
            T::F64,
            T::String,
            T::bytes(),
            T::unit(),
            T::identity(),
            T::connection_id(),
            T::timestamp(),
            T::time_duration(),
            T::uuid(),
            T::schedule_at(),
            T::plain_enum(["Red", "Green", "Blue"]),
        ];
        leaves[self.below(leaves.len() as u64) as usize].clone()
    }

    fn ty(&mut self, depth: u32) -> AlgebraicType {
        if depth == DEPTH_MAX || self.below(3) == 0 {
            return self.leaf();
        }
        let members = |random: &mut Random, count: u64| -> Vec<(String, AlgebraicType)> {
            (0..count).map(|number| (format!("member{number}"), random.ty(depth + 1))).collect()
        };
        match self.below(5) {
            0 => AlgebraicType::array(self.ty(depth + 1)),
            1 => match self.ty(depth + 1) {
                inner if is_option(&inner) => inner,
                inner => AlgebraicType::option(inner),
            },
            2 => {
                let both = self.ty(depth + 1);
                AlgebraicType::result(both.clone(), both)
            }
            3 => {
                let count = 1 + self.below(4);
                let members = members(self, count);
                let fields = members.iter().map(|(name, ty)| (name.as_str(), ty.clone()));
                AlgebraicType::Product(ProductType::named(fields))
            }
            _ => {
                let count = 1 + self.below(4);
                let members = members(self, count);
                let variants = members.iter().map(|(name, ty)| (name.as_str(), ty.clone()));
                AlgebraicType::Sum(SumType::named(variants))
            }
        }
    }

    fn value(&mut self, ty: &AlgebraicType) -> AlgebraicValue {
        use AlgebraicType as T;
        use AlgebraicValue as V;
        match ty {
            T::Bool => V::Bool(self.below(2) == 1),
            T::I8 => V::I8(self.bits() as i8),
            T::U8 => V::U8(self.bits() as u8),
            T::I16 => V::I16(self.bits() as i16),
            T::U16 => V::U16(self.bits() as u16),
            T::I32 => V::I32(self.bits() as i32),
            T::U32 => V::U32(self.bits() as u32),
            T::I64 => V::I64(self.bits() as i64),
            T::U64 => V::U64(self.bits()),
            T::I128 => V::I128(self.wide() as i128),
            T::U128 => V::U128(self.wide()),
            T::I256 => V::I256(I256::from_limbs([self.bits(), self.bits(), self.bits(), self.bits()])),
            T::U256 => V::U256(U256::from_limbs([self.bits(), self.bits(), self.bits(), self.bits()])),
            T::F32 => V::F32(Some(f32::from_bits(self.next() as u32)).filter(|float| !float.is_nan()).unwrap_or(-0.0)),
            T::F64 => V::F64(Some(f64::from_bits(self.next())).filter(|float| !float.is_nan()).unwrap_or(-0.0)),
            T::String => {
                let letters = ['a', '"', '\\', '\n', '\u{0}', '\u{e9}', '\u{2603}', '\u{1f980}', '1', '-'];
                let count = self.below(20);
                V::string(&(0..count).map(|_| letters[self.below(10) as usize]).collect::<String>())
            }
            T::Array(item) if **item == T::U8 => {
                let count = self.below(20);
                V::Bytes((0..count).map(|_| self.next() as u8).collect::<Vec<_>>().into())
            }
            T::Array(item) => {
                let count = self.below(4);
                V::Array((0..count).map(|_| self.value(item)).collect())
            }
            T::Product(product) => V::Product(product.elements.iter().map(|element| self.value(&element.ty)).collect()),
            T::Sum(sum) => {
                let tag = self.below(sum.variants.len() as u64) as u8;
                V::Sum { tag, value: Box::new(self.value(&sum.variants[usize::from(tag)].ty)) }
            }
            T::Ref(_) => unreachable!("random types have no references"),
        }
    }
}

fn is_option(ty: &AlgebraicType) -> bool {
    matches!(ty, AlgebraicType::Sum(sum) if sum.is_option())
}

/// The SDK at the other end of a pipe.
struct Sdk {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Sdk {
    fn start() -> Result<Sdk, &'static str> {
        let folder = npm::folder()?;
        let mut command = npm::node(&folder);
        let mut child = command
            .arg("codecs.mjs")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|_| "node does not start")?;
        let input = child.stdin.take().expect("standard input is piped");
        let output = BufReader::new(child.stdout.take().expect("standard output is piped"));
        Ok(Sdk { child, input, output })
    }

    fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.input, "{question}").expect("the SDK reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the SDK answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

impl Drop for Sdk {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn values_mean_the_same_to_the_sdk() {
    let mut sdk = match Sdk::start() {
        Ok(sdk) => sdk,
        Err(missing) => return skip(missing),
    };
    let factor = if std::env::var_os("TINE_TESTS_LONG").is_some() { 10 } else { 1 };
    for seed in 0..VALUES * factor {
        let mut random = Random(seed);
        let ty = random.ty(0);
        let value = random.value(&ty);
        let mut bytes = Vec::new();
        encode_value(&value, &mut bytes);
        let json = bsatn_to_json(&ty, &mut Reader::new(&bytes)).expect("our own value");
        let question = json!({ "type": type_to_json(&ty), "bsatn": hex(&bytes), "json": json.to_string() });
        let answer = sdk.ask(&question);
        let about = || format!("seed {seed}: {ty:?}\n{value:?}\n{json}\n{answer}");
        assert_eq!(answer["again"], json!(hex(&bytes)), "BSATN: {}", about());
        assert_eq!(answer["fromJson"], json!(hex(&bytes)), "our JSON: {}", about());
        let theirs = answer["json"].as_str().and_then(|text| serde_json::from_str(text).ok());
        let mut read = Vec::new();
        json_to_bsatn(&ty, &theirs.expect("JSON"), &mut read).unwrap_or_else(|error| panic!("{error}: {}", about()));
        assert_eq!(hex(&read), hex(&bytes), "their JSON: {}", about());
    }
}
