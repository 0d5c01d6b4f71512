// Copies the licences of the repository into the package that npm packs; run in the package's folder.
import { copyFileSync } from "node:fs";

for (const name of ["LICENSE-MIT", "LICENSE-APACHE"]) copyFileSync(new URL(`../../../${name}`, import.meta.url), name);
