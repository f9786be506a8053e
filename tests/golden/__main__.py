"""Write the expected half of every pair anew: ``python -m tests.golden``. Read the difference before committing it."""

from __future__ import annotations

from tests.golden.worlds import FOLDER, decide

for given in sorted(FOLDER.glob("*.in.yaml")):
    expected = given.with_name(given.name.replace(".in.", ".out."))
    expected.write_text(decide(given))
    print(expected.name)
