# make report   the main job on real images: classify, export, verify, count the energy (about a minute after the installation)
# make test     ruff, mypy --strict, and all tests
# make interop  only the tests that read our NIR files in other simulators (docs/interop.md)
# make family DATA="TAG=SOURCE ..."   for maintainers: train what is left of weights/plan.toml, a stage on each core, in the background
# make adopt MODEL=FOLDER DATA=SOURCE   for maintainers: export, verify and measure a trained model, and take it into weights/
# make adopt DATA="TAG=SOURCE ..."   the same for every stage of the plan that is finished
# make docs        the site of docs/ and a gallery of all networks, into site/, in the same environment
# make benchmark   the tables of the README, beside peers, in an environment of its own
# make loihi       our counts beside a simulator of Loihi, SANA-FE, in an environment of its own (docs/energy.md)

PYTHON ?= python3
BIN := .venv/bin
MODEL := danet20-t4.fmnist

.PHONY: report test interop docs family adopt benchmark loihi clean

report: .venv/installed
	@mkdir -p report
	$(BIN)/zoo classify $(MODEL)
	$(BIN)/zoo export $(MODEL) --to onnx --out report
	$(BIN)/zoo classify report/$(MODEL).onnx
	$(BIN)/zoo energy $(MODEL) --out report

test: .venv/tools .venv/interop
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -n 2 -m "not slow"
	$(BIN)/pytest -n 3 -m slow # which wait for processes of their own

interop: .venv/interop
	$(BIN)/pytest -n 2 tests/interop

docs: .venv/tools
	$(BIN)/mkdocs build --quiet
	-$(BIN)/zoo page --all --out site/gallery # needs npm when the package is built
	@echo "see site/index.html; python -m http.server --directory site, then localhost:8000/gallery"

family: .venv/tools
	mkdir -p runs/family
	nohup nice -n 19 $(BIN)/zoo stages weights/plan.toml $(if $(DATA),--data $(DATA)) >> runs/family/log 2>&1 &
	@echo "see runs/family/log"

adopt: .venv/tools
ifeq ($(origin MODEL), command line)
	rm -rf runs/adopted && mkdir -p runs/adopted
	$(BIN)/zoo evaluate $(MODEL) --data $(DATA)
	$(BIN)/zoo export $(MODEL) --to onnx nir --out runs/adopted
	$(BIN)/zoo evaluate runs/adopted/*.onnx --data $(DATA) --json > runs/adopted/onnx.txt
	$(BIN)/zoo energy $(MODEL) --data $(DATA) --first 1000 --device 45nm-fp32 --out runs/adopted
	$(BIN)/python -m zoo.publishing.bundle $(MODEL) --energy runs/adopted/*.json --onnx runs/adopted/onnx.txt
	$(BIN)/python tests/golden.py
else
	mkdir -p runs
	$(BIN)/zoo stages weights/plan.toml --data $(DATA) --finished > runs/finished
	while read -r model source; do $(MAKE) adopt MODEL="$$model" DATA="$$source" || exit 1; done < runs/finished
endif

benchmark: .venv-bench/installed
	.venv-bench/bin/python benchmarks/run.py
	.venv-bench/bin/python benchmarks/runtimes.py
	.venv-bench/bin/python benchmarks/hub.py
	.venv-bench/bin/python benchmarks/energy_peers.py
	.venv-bench/bin/python benchmarks/training.py
	.venv-bench/bin/python benchmarks/training_cost.py

loihi: .venv/installed .venv-sanafe/installed
	$(BIN)/python benchmarks/loihi_sanafe.py

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/tools: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.venv/interop: .venv/tools tests/interop/peers.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,interop]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --requirement tests/interop/peers.txt
	@touch $@

.venv-bench/installed: pyproject.toml benchmarks/requirements.txt benchmarks/peers.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check --editable '.[openvino]' --requirement benchmarks/requirements.txt
	.venv-bench/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement benchmarks/peers.txt
	@touch $@

.venv-sanafe/installed: benchmarks/sanafe.txt
	$(PYTHON) -m venv .venv-sanafe
	.venv-sanafe/bin/pip install --quiet --disable-pip-version-check --requirement benchmarks/sanafe.txt
	@touch $@

clean:
	rm -rf .venv .venv-bench .venv-sanafe report site
