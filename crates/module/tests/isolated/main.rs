//! The tests of modules once more, with every module compiled and every instance run in processes of their own; and what only such
//! modules survive.

mod crashes;

#[path = "../modules/bundles.rs"]
mod bundles;
#[path = "../modules/definition.rs"]
mod definition;
#[path = "../modules/determinism.rs"]
mod determinism;
#[path = "../modules/errors.rs"]
mod errors;
#[path = "../modules/features.rs"]
mod features;
#[path = "../modules/harness.rs"]
mod harness;
#[path = "../modules/limits.rs"]
mod limits;
#[path = "../modules/procedures.rs"]
mod procedures;
#[path = "../modules/sdk.rs"]
mod sdk;
#[path = "../modules/tables.rs"]
mod tables;
#[path = "../modules/values.rs"]
mod values;

const IS_ISOLATED: bool = true;

/// The test harness has a `main` of its own, so that this runs before it: the C library calls what is in this section with the
/// arguments already in place and no thread started.
#[used]
#[unsafe(link_section = ".init_array")]
static INIT: extern "C" fn() = {
    extern "C" fn init() {
        tine_sandbox::init(&[tine_module::isolation::ENTRY]);
    }
    init
};
