use super::*;

fn word(text: &str) -> Digest {
    let digits: Vec<u8> = text.bytes().map(|digit| char::from(digit).to_digit(16).expect("hex") as u8).collect();
    std::array::from_fn(|at| digits[2 * at] << 4 | digits[2 * at + 1])
}

fn number(value: u64) -> Digest {
    let mut word = [0; 32];
    word[24..].copy_from_slice(&value.to_be_bytes());
    word
}

/// Roots of the empty trees of the protocol this hash is used with, by height.
#[test]
fn empty_roots() {
    for (separator, height, root) in [
        (2_982_624_097, 42, "2590f2aab19dd791700b4a43d3f52bb88ef2409a3731da8e848663559202e4c6"),
        (2_982_624_097, 36, "0fef6d80d31109ddb56d6b3f607cbc9c0af0bff3ea0d43e8f278983c64c11f7a"),
    ] {
        let empty = (0..height).fold([0; 32], |below, _| hash(&[number(separator), below, below]));
        assert_eq!(empty, word(root));
    }
}

/// A hash of 23 words: eight permutations with a partial group at the end.
#[test]
fn many_words() {
    let mut words = vec![number(0); 3];
    for (root, size) in [
        ("0fef6d80d31109ddb56d6b3f607cbc9c0af0bff3ea0d43e8f278983c64c11f7a", 0),
        ("2590f2aab19dd791700b4a43d3f52bb88ef2409a3731da8e848663559202e4c6", 0),
        ("18935581a8ed73d08ffd00386fba55ba6c89f3ab848a76b8fedfa9034cee0454", 128),
        ("1bef38b621017d3c7416663d0cd81369424560710526a3fbaaec13e356b9d084", 128),
    ] {
        words.extend([word(root), number(size)]);
    }
    words.resize(23, number(0));
    assert_eq!(hash(&words), word("1eb0c59b37ee9c32305bfb35eb63ef0410224f2637f6acea0e7ca65cd2cf2ab2"));
}

/// Words at the field's ends and elsewhere.
fn some_words() -> Vec<Digest> {
    let largest = field::bytes([MODULUS_LOW - 1, field::MODULUS[1], field::MODULUS[2], field::MODULUS[3]]);
    let mut value = [0u8; 32];
    let mut words = vec![number(0), number(1), largest];
    for round in 0..200u64 {
        value = hash(&[value, number(round)]);
        words.push(value);
    }
    words
}

/// The form that the processor has agrees with the portable one, and each operation with its own at the bounds.
#[test]
fn forms_agree() {
    let words = some_words();
    for count in 1..8 {
        for words in words.windows(count) {
            assert_eq!(hash(words), sponge(Portable, words));
        }
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(adx) = adx::Adx::detect() {
        let twice = field::TWICE_MODULUS;
        // All are below 2p, the first ones just.
        let mut limbs =
            vec![[twice[0] - 1, twice[1], twice[2], twice[3]], [u64::MAX, u64::MAX, u64::MAX, twice[3] - 1]];
        limbs.extend([field::MODULUS, field::ZERO, [1, 0, 0, 0], [0, 0, 0, twice[3]]]);
        limbs.extend(words.iter().map(field::limbs));
        for a in &limbs {
            for b in &limbs {
                assert_eq!(adx.multiply(*a, b), Portable.multiply(*a, b), "{a:x?} times {b:x?}");
                assert_eq!(adx.add(*a, b), Portable.add(*a, b), "{a:x?} and {b:x?}");
            }
            assert_eq!(adx.double(*a), field::double(*a));
        }
    }
}

/// The groups of eight agree with the one-by-one form.
#[test]
fn groups_agree_with_single_hashes() {
    let words = some_words();
    let mut inputs = Vec::new();
    for at in 0..words.len() - 4 {
        inputs.push([words[at], words[(at * 7) % words.len()], words[at + 2], words[at + 3]]);
    }
    for count in [1, 2, 7, 8, 9, 64, inputs.len()] {
        let mut outputs = vec![[0; 32]; count];
        hash_each(&inputs[..count], &mut outputs);
        for (input, output) in inputs.iter().zip(&outputs) {
            assert_eq!(*output, hash(input));
        }
    }
}

const MODULUS_LOW: u64 = field::MODULUS[0];

#[test]
fn words_at_or_above_the_modulus_are_told_apart() {
    let modulus = field::bytes(field::MODULUS);
    assert!(!is_canonical(&modulus) && !is_canonical(&[0xff; 32]));
    let mut below = modulus;
    below[31] -= 1;
    assert!(is_canonical(&below) && is_canonical(&[0; 32]));
    assert!(std::panic::catch_unwind(|| hash(&[modulus])).is_err());
}
