"""The dependencies: what deny.toml allows. The database of advisories is not asked, since it is not in any registry."""

from conftest import ROOT, run, tool


def test_licences_versions_and_sources_are_as_agreed():
    run(tool("cargo-deny"), "--locked", "check", "bans", "licenses", "sources", cwd=ROOT)


def test_the_licences_that_cargo_names_are_here():
    assert 'license = "MIT OR Apache-2.0"' in (ROOT / "Cargo.toml").read_text()
    for name in ("MIT", "APACHE"):
        assert "The Switchboard authors" in (ROOT / f"LICENSE-{name}").read_text()
