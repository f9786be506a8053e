"""Write the expected half of every pair anew: ``python -m tests.golden``. Read the difference before committing it."""

from __future__ import annotations

from tests.golden import comparison, outcomes, serving, worlds

for folder, make in (
    (worlds.FOLDER, worlds.decide),
    (serving.FOLDER, serving.build),
    (comparison.FOLDER, comparison.build),
    (outcomes.FOLDER, outcomes.build),
):
    for given in sorted(folder.glob("*.in.yaml")):
        expected = given.with_name(given.name.replace(".in.", ".out."))
        expected.write_text(make(given))
        print(expected.name)
