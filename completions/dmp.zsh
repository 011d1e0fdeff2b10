
#compdef dmp

_dmp_completion() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _DMP_COMPLETE=complete_zsh dmp)
}

compdef _dmp_completion dmp

