from rvq_jax.cli import main

raise SystemExit(main())
